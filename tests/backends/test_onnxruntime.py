"""What the onnxruntime backend promises beyond the contract."""

from __future__ import annotations

import onnxruntime
import psutil
import pytest

from coinfer.backends import get_backend
from coinfer.backends.pools import POOLS
from coinfer.errors import BackendError, ExecutionError
from coinfer.machine.processor import Processor
from coinfer.testing.models import model_from_text, quantised_linear, tiny_conv, tiny_linear


def processor(name: str = "cpu0", **fields: object) -> Processor:
    values: dict[str, object] = {"units": frozenset({"core0"}), **fields}
    return Processor(name=name, backend="onnxruntime", **values)  # type: ignore[arg-type]


def test_one_thread_processors_on_two_cores_share_a_session() -> None:
    key = get_backend("onnxruntime").sharing_key
    other = processor("cpu1", units=frozenset({"core1"}), cores=(1,))
    assert key(processor()) == key(other)


@pytest.mark.parametrize(
    "other",
    [
        {"threads": 2},
        {"device": "CUDA:0"},
        {"precision": "int8"},
        {"options": {"session.set_denormal_as_zero": "1"}},
    ],
)
def test_processors_that_differ_in_what_is_compiled_do_not_share(other: dict[str, object]) -> None:
    key = get_backend("onnxruntime").sharing_key
    assert key(processor()) != key(processor(**other))


def test_a_wide_session_takes_its_pool_out_of_the_budget_and_gives_it_back() -> None:
    before = POOLS.in_use
    session = get_backend("onnxruntime").load(tiny_conv().model, processor(threads=3))
    assert POOLS.in_use == before + 2
    assert session.placement().threads == 3
    session.close()
    session.close()
    assert POOLS.in_use == before


def test_a_failed_load_gives_its_pool_back() -> None:
    before = POOLS.in_use
    with pytest.raises(BackendError):
        get_backend("onnxruntime").load(
            tiny_conv().model,
            processor(threads=3, options={"session.intra_op_thread_affinities": "x"}),
        )
    assert POOLS.in_use == before


@pytest.mark.alone
def test_a_wide_session_has_exactly_the_threads_that_were_asked_for() -> None:
    process = psutil.Process()
    backend = get_backend("onnxruntime")
    before = process.num_threads()
    session = backend.load(tiny_conv().model, processor(threads=3))
    assert process.num_threads() == before + 2  # the third is the caller's
    session.close()


def test_a_device_that_is_not_installed_is_refused_and_not_replaced_by_the_cpu() -> None:
    with pytest.raises(BackendError, match=r"'tiny_linear'.*'cpu0'.*no device 'CANN:0'"):
        get_backend("onnxruntime").load(tiny_linear().model, processor(device="CANN:0"))


def test_a_precision_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(BackendError, match="is fp32, not bf16"):
        get_backend("onnxruntime").load(tiny_linear().model, processor(precision="bf16"))


def test_a_quantised_model_runs_in_int8_and_says_so() -> None:
    example = quantised_linear()
    session = get_backend("onnxruntime").load(example.model, processor(precision="int8"))
    assert session.placement().precision == "int8"
    inputs = example.model.sample_inputs(batch=3)
    # Products of 8-bit integers and powers of two are exact in float32.
    assert (session.run(inputs)["y"] == example.reference(inputs)["y"]).all()
    session.close()


def test_an_option_that_the_cpu_provider_would_ignore_is_refused() -> None:
    with pytest.raises(BackendError, match="no option 'arena'"):
        get_backend("onnxruntime").load(tiny_linear().model, processor(options={"arena": "1"}))


def test_a_failing_run_names_model_and_processor() -> None:
    example = tiny_linear()
    session = get_backend("onnxruntime").load(example.model, processor())
    wrong = {"x": example.model.sample_inputs()["x"][:, :3]}
    with pytest.raises(ExecutionError, match=r"'tiny_linear' on processor 'cpu0'"):
        session.run(wrong)
    session.close()


def test_all_operators_are_placed_on_the_asked_provider() -> None:
    session = get_backend("onnxruntime").load(tiny_linear().model, processor())
    assert set(session.placement().operators) == {"CPUExecutionProvider"}
    session.close()


NODES = """g (float[2,3] x, bool c) => (float[2,3] y)
{ a = Relu(x) b = HardSwish(a) d = If(c) <then_branch = t () => (float[2,3] p) { p = Tanh(b) },
  else_branch = e () => (float[2,3] q) { q = Neg(b) }> y = Abs(d) }"""
"""A plain node, one that is expanded to others, and one with branches."""


def test_the_cpu_takes_all_that_it_compiles() -> None:
    model = model_from_text(NODES, name="g")
    found = get_backend("onnxruntime").supported(model, processor())
    assert found == {"a", "b", "d", "y"}


def test_what_another_provider_took_is_not_supported() -> None:
    """Azure stands for an accelerator with gaps: it takes nothing, and the CPU takes the rest."""
    if "Azure" not in str(onnxruntime.get_available_providers()):
        pytest.skip("this onnxruntime has one provider only")
    model = model_from_text(NODES, name="g")
    assert get_backend("onnxruntime").supported(model, processor(device="Azure")) == frozenset()


def test_a_device_that_it_does_not_have_is_named() -> None:
    with pytest.raises(BackendError, match="no device 'TPU'"):
        get_backend("onnxruntime").supported(tiny_linear().model, processor(device="TPU"))
