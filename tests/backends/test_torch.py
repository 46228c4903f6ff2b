"""What the backend torch promises beyond the contract: what it refuses, shares and leaves alone."""

from __future__ import annotations

import dataclasses
from contextlib import closing

import numpy as np
import onnx.defs
import onnx.parser
import pytest

from coinfer.backends import get_backend
from coinfer.errors import BackendError
from coinfer.machine.processor import Processor
from coinfer.model import Model, model_from_ir
from coinfer.onnx_backend import CoinferBackend
from coinfer.testing.models import model_from_text, quantised_linear, tiny_linear
from coinfer.zoo import registry

torch = pytest.importorskip("torch")

from coinfer.backends.torch.operators import OPERATORS  # noqa: E402
from coinfer.backends.torch.program import Program  # noqa: E402

CPU = Processor(name="t", backend="torch", units=frozenset({"core0"}))
OTHER = Processor(name="o", backend="onnxruntime", units=frozenset({"core1"}))

WITH_GAP = """<ir_version: 10, opset_import: ["": 20]>
    gap (float[N,3,3] x) => (float[N] y) { a = Tanh(x)  b = Det(a)  y = Exp(b) }"""


def outputs(model: Model, inputs: dict[str, np.ndarray], processor: Processor = CPU) -> dict:
    with closing(get_backend(processor.backend).load(model, processor)) as session:
        return session.run(inputs)


def test_support_has_a_gap_where_the_table_has_one() -> None:
    model = model_from_ir(_graph(WITH_GAP), name="gap")
    assert get_backend("torch").supported(model, CPU) == {"a", "y"}
    with pytest.raises(BackendError, match=r"torch does not compute Det .*another backend"):
        get_backend("torch").load(model, CPU)


def test_a_model_is_cut_around_what_torch_does_not_compute() -> None:
    only_the_gap = dataclasses.replace(OTHER, supported_ops=frozenset({"Det"}))
    x = np.random.default_rng(1).standard_normal((2, 3, 3)).astype(np.float32)
    proto = onnx.parser.parse_model(WITH_GAP)
    with CoinferBackend.prepare(proto, processors=[CPU, only_the_gap]) as prepared:
        assert [name for _, name in prepared.route.steps] == ["t", "o", "t"]
        (made,) = prepared.run([x])
    wanted = np.exp(np.linalg.det(np.tanh(x).astype(np.float64)))
    np.testing.assert_allclose(made, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(float[N,2,8,8] x) => (float[N,2,A,B] y) { y = MaxPool<kernel_shape=[2,2]>(x) }", ""),
        (
            "(float[N,2,8,8] x) => (float[N,2,A,B] y, int64[N,2,A,B] i) "
            "{ y, i = MaxPool<kernel_shape=[2,2]>(x) }",
            "only the first output",
        ),
        ("(uint16[N] x) => (uint16[N] y) { y = Add(x, x) }", "not computed in uint16"),
        ("(int64[N,2] x, int64[2,2] w) => (int64[N,2] y) { y = MatMul(x, w) }", "in int64"),
        ("(string[N] x) => (string[N] y) { y = Identity(x) }", "not computed in string"),
    ],
)
def test_a_form_that_torch_does_not_compute_is_refused_with_its_reason(
    text: str, reason: str
) -> None:
    model = model_from_text(f"agraph {text}", name="m")
    if not reason:
        get_backend("torch").load(model, CPU).close()
        return
    with pytest.raises(BackendError, match=reason):
        get_backend("torch").load(model, CPU)


def test_outputs_share_no_memory_with_inputs_constants_or_each_other() -> None:
    model = model_from_text(
        """agraph (float[2] x) => (float[2] same, float[2] again, float[2] fixed)
        <float[2] w = {1, 2}> { same = Identity(x)  again = Identity(x)  fixed = Identity(w) }""",
        name="m",
    )
    x = np.zeros(2, np.float32)
    with closing(get_backend("torch").load(model, CPU)) as session:
        made = session.run({"x": x})
        for array in made.values():
            array += 1
        assert np.array_equal(x, [0, 0])
        assert np.array_equal(made["same"], [1, 1])
        assert np.array_equal(made["again"], [1, 1])
        assert np.array_equal(session.run({"x": x})["fixed"], [1, 2])


def test_what_follows_from_constants_is_computed_once() -> None:
    program = Program.of(
        quantised_linear().model, compute=torch.float32, device=torch.device("cpu"), what="it"
    )
    # The weight's DequantizeLinear is gone.
    kinds = [step.node.op_type for step in program.steps]
    assert kinds == ["QuantizeLinear", "DequantizeLinear", "MatMul"]


@pytest.mark.parametrize(("compute", "most"), [(torch.bfloat16, 0.05), (torch.float16, 0.005)])
def test_below_fp32_inputs_and_outputs_stay_float32(compute: object, most: float) -> None:
    model = model_from_ir(registry.build("lenet"), name="lenet")
    inputs = registry.sample_inputs("lenet", batch=2, seed=1)
    program = Program.of(model, compute=compute, device=torch.device("cpu"), what="it")
    (made,) = program.run([torch.from_numpy(array) for array in inputs.values()])
    assert made.dtype == torch.float32
    (wanted,) = outputs(model, inputs, OTHER).values()
    # Eight bits of mantissa, eleven of half precision, through five layers.
    error = np.linalg.norm(made.numpy() - wanted) / np.linalg.norm(wanted)
    assert 1e-5 < error <= most


def test_weights_are_there_once_for_processors_of_one_device() -> None:
    backend = get_backend("torch")
    model = tiny_linear().model
    wide = dataclasses.replace(CPU, threads=2, units=frozenset({"core0", "core1"}))
    with closing(backend.load(model, CPU)) as one, closing(backend.load(model, wide)) as other:
        assert one._program is other._program


def test_the_number_of_threads_is_put_back() -> None:
    before = torch.get_num_threads()
    outputs(tiny_linear().model, tiny_linear().model.sample_inputs())
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "CUDA:9"}, r"finds no device 'CUDA:9'.*coinfer doctor"),
        ({"precision": "int8"}, "reports no int8"),
        ({"options": {"priority": "high"}}, "no option 'priority' on the CPU"),
    ],
)
def test_a_processor_that_cannot_be_is_refused(change: dict, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        get_backend("torch").load(tiny_linear().model, dataclasses.replace(CPU, **change))


def test_every_operator_of_the_table_is_one_of_onnx() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    assert set(OPERATORS) <= known


def _graph(text: str) -> object:
    import onnx_ir as ir

    return ir.from_proto(onnx.parser.parse_model(text))


def test_a_thread_that_lets_torch_use_bf16_gets_the_precision_of_the_processor() -> None:
    model = tiny_linear().model
    inputs = model.sample_inputs()
    (wanted,) = outputs(model, inputs).values()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (made,) = outputs(model, inputs).values()
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, wanted)
