"""Networks in int8: promises, errors and reports. Times are made up, but in one test."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import coinfer
from coinfer.backends import get_backend
from coinfer.backends.onnxruntime.quantising import Way, prepared, quantised
from coinfer.errors import BackendError, ConfigurationError
from coinfer.graph.operators import MATRIX_PRODUCTS
from coinfer.machine.processor import Processor
from coinfer.metrics.paired import PairedRatio
from coinfer.model import Model, model_from_ir
from coinfer.planner.compressing import quantisation
from coinfer.planner.compressing.quantisation import Quantisation
from coinfer.profiling.error import relative_error
from coinfer.profiling.side_by_side import Contest

CPU = Processor(name="cpu", backend="onnxruntime", units=frozenset({"core"}))


def network(*, opset: int = 20, outputs: int = 10) -> Model:
    """Convolution, norm, convolution, dense layer; inputs are (batch, 3, 12, 12)."""
    rng = np.random.default_rng(0)
    arrays = {
        "w1": rng.normal(size=(16, 3, 3, 3)) / 5,
        "s": np.ones(16),
        "b": np.zeros(16),
        "m": np.full(16, 0.1),
        "v": np.full(16, 2.0),
        "w2": rng.normal(size=(16, 16, 3, 3)) / 12,
        "w3": rng.normal(size=(16 * 36, 10)) / 24,
        "b3": rng.normal(size=10),
    }
    graph = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": {opset}]>
        net (float[batch, 3, 12, 12] x) => (float[batch, {outputs}] y) {{
            a = Conv <pads = [1, 1, 1, 1]> (x, w1)
            n = BatchNormalization(a, s, b, m, v)
            r = Relu(n)
            c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r, w2)
            q = Relu(c)
            f = Flatten(q)
            y = Gemm(f, w3, b3)
        }}"""
    )
    for name, array in arrays.items():
        value = next(v for n in graph.graph for v in n.inputs if v is not None and v.name == name)
        value.const_value = ir.tensor(array.astype(np.float32), name=name)
        graph.graph.register_initializer(value)
    return model_from_ir(graph, name="net")


def samples(count: int = 12, seed: int = 1) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(1, 3, 12, 12)).astype(np.float32)} for _ in range(count)]


def off(one: Model, other: Model) -> float:
    made = []
    for model in (other, one):
        session = get_backend("onnxruntime").load(model, CPU)
        try:
            made.append([dict(session.run(feed)) for feed in samples(seed=77)])
        finally:
            session.close()
    return relative_error(*made)


def made_up(monkeypatch: pytest.MonkeyPatch, ratio: float = 2.0) -> None:
    """Times that depend on nothing."""
    found = PairedRatio(median=ratio, lower=ratio, upper=ratio, rounds=9)

    def contests(*_: Any, **__: Any) -> list[Contest]:
        return [Contest(ratio=found, ours_s=1.0, theirs_s=ratio)]

    monkeypatch.setattr(Quantisation, "_contests", contests)


def test_weights_become_bytes_and_outputs_stay_near(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made_up(monkeypatch)
    model = network()
    found = coinfer.compress(
        model, int8=True, max_error=0.05, samples=samples(90), processors=[CPU]
    )
    report = found.report
    assert report.int8 is not None
    assert report.int8.layers == (3, 3)
    assert report.int8.weight_bytes[0] == model.weight_bytes
    assert report.int8.weight_bytes[1] == found.model.weight_bytes < 0.4 * model.weight_bytes
    assert 0 < report.output_error <= 0.05
    assert 0 < off(model, found.model) < 0.1
    for one, other in zip(model.inputs + model.outputs, found.model.inputs + found.model.outputs,
                          strict=True):  # fmt: skip
        assert (one.name, one.dtype, one.shape) == (other.name, other.dtype, other.shape)
    types = [node.op_type for node in found.model.graph.graph]
    assert "QuantizeLinear" in types
    assert "BatchNormalization" not in types, "the norm is in its convolution"
    assert report.to_json()["int8"]["layers"] == [3, 3]

    path = tmp_path / "int8.onnx"
    found.save(path)
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    made = openvino.Core().compile_model(path, "CPU")(samples(seed=5)[0])[0]
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, samples(seed=5)[0])
    assert np.linalg.norm(made - expected) < 0.05 * np.linalg.norm(expected)


def test_models_of_old_versions_of_onnx_are_quantised_per_channel_too() -> None:
    model = network(opset=11)
    assert 0 < off(model, quantised(prepared(model), samples(90), Way())) < 0.1


def test_what_the_library_prints_is_not_ours(capfd: pytest.CaptureFixture[str]) -> None:
    quantised(prepared(network()), samples(), Way(method="Percentile"))
    # Its sessions warn of a shape that is wrong.
    quantised(prepared(network(outputs=11)), samples(), Way())
    assert capfd.readouterr() == ("", "")


def test_equal_seeds_give_equal_models(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(monkeypatch)
    prints = {
        coinfer.compress(
            network(), int8=True, max_error=0.05, samples=samples(), processors=[CPU], seed=4
        ).model.fingerprint
        for _ in range(2)
    }
    assert len(prints) == 1


def test_what_is_not_surely_faster_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(monkeypatch, ratio=0.99)
    model = network()
    found = coinfer.compress(model, int8=True, max_error=0.5, samples=samples(), processors=[CPU])
    assert found.model is model
    assert found.report.int8 is None
    assert any("not surely faster" in warning for warning in found.report.warnings)


def test_a_layer_that_int8_ruins_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what keeps the ends in fp32 is within the error, so that is what comes."""
    made_up(monkeypatch)
    errors = {"": 0.5, "kept": 0.01}

    def error(self: Quantisation, model: Model, *_: Any) -> float:
        heavy = [node for node in model.graph.graph if node.op_type in MATRIX_PRODUCTS]
        last = next(node for node in heavy if node.outputs[0].name.startswith("y"))
        is_kept = last.inputs[1] is not None and last.inputs[1].is_initializer()
        return errors["kept" if is_kept else ""]

    monkeypatch.setattr(Quantisation, "_error", error)
    found = coinfer.compress(
        network(), int8=True, max_error=0.02, samples=samples(), processors=[CPU]
    )
    assert found.report.int8 is not None
    assert found.report.int8.layers == (2, 3)
    assert "1 layers kept in fp32" in found.report.int8.way


def test_the_originals_outputs_are_computed_once_per_set_of_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_up(monkeypatch)
    real, seen = quantisation.outputs_of, list[int]()

    def outputs_of(model: Model, feeds: Any, backend: Any) -> Any:
        seen.append(len(feeds))
        return real(model, feeds, backend)

    monkeypatch.setattr(quantisation, "outputs_of", outputs_of)
    given = samples()
    coinfer.compress(network(), int8=True, max_error=0.5, samples=given, processors=[CPU])
    assert len(seen) == 2
    assert sum(seen) == len(given)


def test_an_error_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"--max-error 1e-09 cannot be kept in int8: .*\d"):
        coinfer.compress(network(), int8=True, max_error=1e-9, samples=samples(), processors=[])


def test_the_error_is_that_of_held_out_samples() -> None:
    model = network()
    found = coinfer.compress(
        model, int8=True, max_error=math.inf, samples=samples(), processors=[], seed=2
    )
    from coinfer.planner.compressing.calibration import split

    held_out = split(samples(), "net", seed=2).held_out
    made = []
    for each in (found.model, model):
        session = get_backend("onnxruntime").load(each, CPU)
        try:
            made.append([dict(session.run(feed)) for feed in held_out])
        finally:
            session.close()
    assert found.report.output_error == pytest.approx(relative_error(*made), rel=1e-3)
    assert found.report.held_out == len(held_out)


@pytest.mark.parametrize("method", ["MinMax", "Entropy", "Percentile"])
def test_every_way_makes_a_model_that_runs(method: str) -> None:
    ready = prepared(network())
    for way in (Way(method=method), Way(method=method, is_whole=False)):
        assert 0 < off(ready, quantised(ready, samples(), way)) < 0.3


@pytest.mark.parametrize(
    ("wanted", "error", "said"),
    [
        ({"ranks": "ratio:0.5"}, ConfigurationError, "int8 decomposes nothing"),
        ({"svd": True}, ConfigurationError, "decompose first"),
        ({"data_aware": False}, ConfigurationError, "int8 decomposes nothing"),
        ({"max_error": 0.0}, ConfigurationError, "out of range"),
    ],
)
def test_what_does_not_go_together_is_said_in_a_line(
    wanted: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        coinfer.compress(network(), int8=True, samples=samples(), processors=[], **wanted)


def test_what_cannot_be_quantised_is_said_in_a_line() -> None:
    model = network()
    done = coinfer.compress(
        model, int8=True, max_error=math.inf, samples=samples(), processors=[]
    ).model
    with pytest.raises(ConfigurationError, match="is quantised already"):
        coinfer.compress(done, int8=True, samples=samples(), processors=[])
    plain = model_from_ir(
        ir.from_onnx_text(
            """<ir_version: 10, opset_import: ["": 20]>
            plain (float[batch, 3] x) => (float[batch, 3] y) { y = Relu(x) }"""
        ),
        name="plain",
    )
    with pytest.raises(ConfigurationError, match="has nothing to quantise"):
        coinfer.compress(plain, int8=True, processors=[])
    odd = model_from_ir(
        ir.from_onnx_text(
            """<ir_version: 10, opset_import: ["": 20, "nobody": 1]>
            odd (float[3, 3] x) => (float[3, 3] y) {
                h = nobody.Odd(x)
                y = MatMul(h, h)
            }"""
        ),
        name="odd",
    )
    with pytest.raises(BackendError, match=r"model 'odd' cannot be .* by onnxruntime: ") as caught:
        coinfer.compress(odd, int8=True, processors=[])
    assert "\n" not in str(caught.value)


@pytest.mark.alone
def test_measured_on_this_machine_it_is_never_slower() -> None:
    model = network()
    # In int8 the outputs of this network, whose weights are random, are off by 0.13.
    found = coinfer.compress(model, int8=True, max_error=0.2, samples=samples(), processors=[CPU])
    if found.report.int8 is not None:
        assert all(row.ratio.is_better for row in found.report.processors)
    else:
        assert found.model is model


def test_a_trained_network_keeps_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digits' network, trained here in a few seconds: at most one point of accuracy."""
    torch = pytest.importorskip("torch", reason="the network is trained by torch")
    pytest.importorskip("onnxscript", reason="torch exports by onnxscript")
    from coinfer.retraining import Recipe, accuracy, exported, train
    from retraining.digits import batches, digits, network

    made_up(monkeypatch)
    module = network()
    recipe = Recipe(epochs=6, learning_rate=3e-3)
    train(module, None, batches(0, 1000, shuffle=True), batches(1000, 1300), recipe=recipe)
    images, classes = digits()
    model = exported(module, images[:2], name="digits", inputs=["image"], outputs=["scores"])
    calibration = [{"image": each[None].numpy()} for each in images[:90]]
    found = coinfer.compress(model, int8=True, max_error=0.1, samples=calibration, processors=[CPU])
    session = get_backend("onnxruntime").load(found.model, CPU)
    try:
        scores = session.run({"image": images[1300:].numpy()})["scores"]
    finally:
        session.close()
    right = float((torch.tensor(np.asarray(scores)).argmax(1) == classes[1300:]).float().mean())
    assert right >= accuracy(copy.deepcopy(module), batches(1300, 1797)) - 0.01
