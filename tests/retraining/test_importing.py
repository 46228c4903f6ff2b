"""From ONNX to torch and back: the module computes what the model does, and can be trained."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from coinfer.backends import get_backend
from coinfer.machine.processor import Processor
from coinfer.model import Model, model_from_ir
from coinfer.testing.models import model_from_text, tiny_linear, unsupported
from coinfer.zoo import registry

torch = pytest.importorskip("torch", reason="retraining needs torch")
pytest.importorskip("tensorly", reason="decomposing needs tensorly")

from coinfer.errors import BackendError  # noqa: E402
from coinfer.retraining import Recipe, decompose, exported, imported, train  # noqa: E402

_CPU = Processor(name="cpu", backend="onnxruntime", units=frozenset({"core0"}))


def zoo_model(name: str) -> Model:
    return model_from_ir(registry.build(name), name=name)


def reference(model: Model, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = get_backend("onnxruntime").load(model, _CPU)
    outputs = session.run(inputs)
    session.close()
    return [outputs[spec.name] for spec in model.outputs]


def error(made: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(made - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("name", ["lenet", "squeezenet1_1", "mobilenet_v2"])
def test_the_module_computes_what_the_model_does(name: str) -> None:
    model = zoo_model(name)
    inputs = registry.sample_inputs(name, seed=1)
    module = imported(model)
    with torch.no_grad():
        made = module(*(torch.from_numpy(array) for array in inputs.values()))
    (wanted,) = reference(model, inputs)
    assert error(made.numpy(), wanted) <= 1e-5


def test_its_layers_are_those_of_torch() -> None:
    kinds = [type(layer) for layer in imported(zoo_model("lenet")).children()]
    assert kinds.count(torch.nn.Conv2d) == 2
    assert kinds.count(torch.nn.Linear) == 3


def test_a_copy_is_a_module_of_its_own() -> None:
    model = zoo_model("lenet")
    module = imported(model)
    image = torch.randn(2, 1, 32, 32)
    before, kept = module(image), [each.clone() for each in module.parameters()]
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert kept
    assert all(map(torch.equal, module.parameters(), kept))
    assert not torch.allclose(twin(image), before)


def test_it_is_decomposed_trained_and_exported() -> None:
    model = zoo_model("lenet")
    teacher = imported(model)
    student = copy.deepcopy(teacher)
    images = torch.randn(64, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    found = decompose(student, images[:1], ranks="ratio:0.3")
    assert found.macs_removed > 0.2
    batches = [images[at : at + 16] for at in range(0, 64, 16)]

    def closeness(module: torch.nn.Module, _: object) -> float:
        with torch.no_grad():
            return -float(torch.linalg.norm(module(images) - teacher(images)))

    trained = train(
        student,
        teacher,
        batches,
        batches,
        recipe=Recipe(epochs=3, distillation=1.0),
        score=closeness,
    )
    assert trained.best.score > trained.epochs[0].score
    pytest.importorskip("onnxscript", reason="torch exports by onnxscript")
    back = exported(student.eval(), images[:2], name="student", inputs=["image"])
    (made,) = reference(back, {"image": images[:5].numpy()})
    with torch.no_grad():
        assert error(made, student(images[:5]).numpy()) <= 1e-5


def test_a_matrix_product_becomes_a_dense_layer() -> None:
    example = tiny_linear()
    module = imported(example.model)
    inputs = example.model.sample_inputs(batch=3, seed=1)
    made = module(torch.from_numpy(inputs["x"])).detach().numpy()
    assert error(made, example.reference(inputs)["y"]) <= 1e-6
    (layer,) = module.children()
    assert layer.weight.shape == (3, 4)


def test_a_normalisation_keeps_its_statistics_in_evaluation_and_learns_them_in_training() -> None:
    model = model_from_text(
        """agraph (float[N,2,4,4] x) => (float[N,2,4,4] y)
        <float[2] s = {1, 2}, float[2] b = {0, 1}, float[2] m = {0.5, -0.5}, float[2] v = {1, 4}>
        { y = BatchNormalization(x, s, b, m, v) }""",
        name="norm",
    )
    module = imported(model)
    inputs = model.sample_inputs(batch=3, seed=1)
    (wanted,) = reference(model, inputs)
    image = torch.from_numpy(inputs["x"])
    assert error(module(image).detach().numpy(), wanted) <= 1e-6
    (layer,) = module.children()
    before = layer.running_mean.clone()
    module.train()(image)
    assert not torch.equal(layer.running_mean, before)


def test_an_operator_that_torch_does_not_compute_is_named() -> None:
    with pytest.raises(BackendError, match=r"torch does not compute example.unknown.Nothing"):
        imported(unsupported())
