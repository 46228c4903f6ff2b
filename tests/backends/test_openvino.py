"""What the openvino backend promises beyond the contract."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import psutil
import pytest

from coinfer import zoo
from coinfer.backends import artefact_parts, get_backend
from coinfer.backends.openvino import OpenVinoBackend
from coinfer.backends.openvino import backend as openvino_backend
from coinfer.backends.openvino.messages import reason_of
from coinfer.backends.pools import POOLS
from coinfer.backends.source import source_of
from coinfer.errors import BackendError, ExecutionError
from coinfer.machine.processor import Processor
from coinfer.model import load_model, model_from_ir
from coinfer.testing.models import quantised_linear, tiny_conv, tiny_linear

pytest.importorskip("openvino")


def processor(name: str = "ov0", **fields: object) -> Processor:
    values: dict[str, object] = {"units": frozenset({"core0"}), **fields}
    return Processor(name=name, backend="openvino", **values)  # type: ignore[arg-type]


def test_processors_on_two_cores_have_a_compiled_model_each() -> None:
    # One compiled model without streams serves one run at a time.
    key = get_backend("openvino").sharing_key
    assert key(processor()) != key(processor("ov1", units=frozenset({"core1"})))


@pytest.mark.alone
def test_a_one_thread_run_uses_the_calling_thread_only() -> None:
    example = tiny_conv()
    session = get_backend("openvino").load(example.model, processor())
    inputs = example.model.sample_inputs(batch=10_000)  # long enough for the clock to see
    session.run(inputs)
    others = _cpu_seconds_of_other_threads()
    for _ in range(20):
        session.run(inputs)
    assert _cpu_seconds_of_other_threads() == others
    session.close()


def test_int8_is_refused_for_a_model_that_is_not_quantised() -> None:
    with pytest.raises(BackendError, match="needs a quantised model"):
        get_backend("openvino").load(tiny_linear().model, processor(precision="int8"))


def test_a_quantised_model_computes_what_its_quantisation_says() -> None:
    example = quantised_linear()
    session = get_backend("openvino").load(example.model, processor(precision="int8"))
    assert session.placement().precision == "int8"
    inputs = example.model.sample_inputs(batch=3)
    # Products of 8-bit integers and powers of two are exact in float32.
    assert (session.run(inputs)["y"] == example.reference(inputs)["y"]).all()
    session.close()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_low_precision_runs_where_the_device_reports_it_and_is_refused_elsewhere(
    precision: str,
) -> None:
    backend = get_backend("openvino")
    reported = next(d for d in backend.devices() if d.name == "CPU").precisions
    if precision not in reported:
        with pytest.raises(BackendError, match=f"reports no {precision}; use one of fp32"):
            backend.load(tiny_conv().model, processor(precision=precision))
    else:
        session = backend.load(tiny_conv().model, processor(precision=precision))
        assert session.placement().precision == precision
        session.close()


def test_fp32_is_not_lowered_by_the_library() -> None:
    session = get_backend("openvino").load(tiny_conv().model, processor())
    assert session.placement().precision == "fp32"
    session.close()


def test_an_unknown_device_is_refused_with_those_there_are() -> None:
    with pytest.raises(BackendError, match=r"no device 'NPU', only .*CPU"):
        get_backend("openvino").load(tiny_linear().model, processor(device="NPU"))


def test_an_option_may_not_contradict_the_processor() -> None:
    with pytest.raises(BackendError, match="NUM_STREAMS follows from the processor"):
        get_backend("openvino").load(tiny_linear().model, processor(options={"NUM_STREAMS": "4"}))


def test_an_unknown_option_is_refused_with_the_librarys_reason_in_one_line() -> None:
    with pytest.raises(BackendError, match="Unsupported property FOO") as caught:
        get_backend("openvino").load(tiny_linear().model, processor(options={"FOO": "1"}))
    assert "\n" not in str(caught.value)
    assert ".cpp" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "(float[n,3,8,8] x) => (float[n,c,h,w] y) <float[1,2,1,1] w = {1, 1}> "
            "{ y = Conv(x, w) }",
            "Conv 'y': Data batch channel count (3) does not match filter input channel count (2)",
        ),
        (
            "(float[2,3] x) => (float[7] y) <int64[1] s = {7}> { y = Reshape(x, s) }",
            "Reshape 'y': Requested output shape [7] is incompatible with input shape",
        ),
        (
            "(float[n,3] x) => (float[n,2] y) <float[2,2] w = {1, 1, 1, 1}> "
            "{ h = Relu(x) y = MatMul(h, w) }",
            "MatMul 'y': Incompatible MatMul matrix dimension",
        ),
        (
            "(string[3] x) => (string[n] y) { y = StringNormalizer(x) }",
            "No conversion rule found for operations: StringNormalizer",
        ),
    ],
)
def test_what_is_wrong_with_a_graph_is_said_in_one_line(
    body: str, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.onnx"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 18]> g {body}'), file)
    model = load_model(file)
    with pytest.raises(BackendError) as caught:
        get_backend("openvino").load(model, processor())
    message = str(caught.value)
    assert reason in message
    assert "\n" not in message
    assert ".cpp" not in message
    assert ".hpp" not in message


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "Exception from src/a.cpp:1:\nCheck 'x == 1' failed at src/b.cpp:2:\nNo memory.\n",
            "No memory",
        ),
        ("Exception from src/a.cpp:1: Cannot do it\n", "Cannot do it"),
        ("Check 'x' failed at src/b.cpp:2: [GENERAL] bad\n", "[GENERAL] bad"),
        (
            "Exception from src/a.cpp:1:\nCheck 'n > 0' failed at src/b.cpp:2:\n\n",
            "Check 'n > 0' failed at src/b.cpp:2:",
        ),
        ("", "RuntimeError"),
    ],
)
def test_the_reason_of_an_error_is_not_a_place_in_the_librarys_source(
    message: str, reason: str
) -> None:
    assert reason_of(RuntimeError(message)) == reason


def test_a_wide_session_takes_its_pool_out_of_the_budget_and_gives_it_back() -> None:
    before = POOLS.in_use
    session = get_backend("openvino").load(tiny_conv().model, processor(threads=2))
    assert POOLS.in_use == before + 2
    session.close()
    session.close()
    assert POOLS.in_use == before


def test_a_failed_load_gives_its_pool_back() -> None:
    before = POOLS.in_use
    with pytest.raises(BackendError):
        get_backend("openvino").load(tiny_conv().model, processor(threads=2, options={"FOO": "1"}))
    assert POOLS.in_use == before


def test_a_failing_run_names_model_and_processor_and_the_session_goes_on() -> None:
    example = tiny_linear()
    session = get_backend("openvino").load(example.model, processor())
    inputs = example.model.sample_inputs()
    with pytest.raises(ExecutionError, match=r"'tiny_linear' on processor 'ov0'.*incompatible"):
        session.run({"x": inputs["x"][:, :3]})
    assert session.run(inputs)["y"].shape == (1, 3)
    session.close()


def _cpu_seconds_of_other_threads() -> float:
    me = threading.get_native_id()
    threads = psutil.Process().threads()
    return sum(t.user_time + t.system_time for t in threads if t.id != me)


def test_a_model_is_read_once_for_all_processors_that_it_is_loaded_for_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = OpenVinoBackend()
    reads: list[object] = []
    monkeypatch.setattr(
        openvino_backend, "source_of", lambda model: reads.append(model) or source_of(model)
    )
    model, other = tiny_linear().model, tiny_conv().model
    cpu = Processor(name="p", backend="openvino", units=frozenset({"p"}))
    with backend.reading_once():
        sessions = [backend.load(each, cpu) for each in (model, other, model)]
    assert reads == [model, other]
    sessions.append(backend.load(model, cpu))
    assert reads == [model, other, model]
    x = model.sample_inputs()
    for session in (sessions[0], sessions[2], sessions[3]):
        np.testing.assert_allclose(session.run(x)["y"], tiny_linear().reference(x)["y"], rtol=1e-5)
        session.close()
    sessions[1].close()


_FIRST_USES = """
import sys, threading
sys.setswitchinterval(1e-6)
import coinfer.backends.openvino
import openvino as ov
together = threading.Barrier(2)
def use():
    together.wait()
    ov.Type.f32.to_dtype()
threads = [threading.Thread(target=use, daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(10)
sys.exit(any(thread.is_alive() for thread in threads))
"""


def test_two_threads_that_use_the_library_first_do_not_wait_for_each_other() -> None:
    """Without the import of the backend, four of five such processes hang."""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", _FIRST_USES], timeout=60, check=False)
        assert done.returncode == 0


def test_a_run_on_one_core_is_computed_by_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its priority is the caller's: urgent requests preempt others by that."""
    monkeypatch.setattr(artefact_parts, "LEAST_WEIGHT_BYTES", 0)
    model = model_from_ir(zoo.build("squeezenet1_1"), name="squeezenet1_1")
    core = Processor(name="ov0", backend="openvino", units=frozenset({"core0"}))
    session = get_backend("openvino").load(model, core)
    feed = model.sample_inputs()
    session.run(feed)
    mine_s, all_s = -time.thread_time(), -time.process_time()
    for _ in range(10):
        session.run(feed)
    mine_s, all_s = mine_s + time.thread_time(), all_s + time.process_time()
    assert mine_s > 0.8 * all_s


_PINNED = """
import os, threading
from coinfer import zoo
from coinfer.backends import get_backend
from coinfer.machine.processor import Processor
from coinfer.model import model_from_ir
from coinfer.threads.pinning import pin_current_thread

model = model_from_ir(zoo.build("mobilenet_v2"), name="mobilenet_v2")
core = max(os.sched_getaffinity(0))
processor = Processor(name="ov", backend="openvino", units=frozenset({"core"}), cores=(core,))
began, ended, looked = threading.Event(), threading.Event(), threading.Event()
def work():
    pin_current_thread(processor.cores)
    session = get_backend("openvino").load(model, processor)
    feed = model.sample_inputs()
    began.set()
    for _ in range(20):
        session.run(feed)
    ended.set()
    looked.wait()
worker = threading.Thread(target=work)
worker.start()
began.wait()
seen = set()
while not ended.is_set():
    seen.add(frozenset(os.sched_getaffinity(worker.native_id)))
looked.set()
worker.join()
print(seen == {frozenset({core})})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are pinned on Linux only")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one core")
def test_a_run_leaves_the_thread_that_asks_on_its_core() -> None:
    """Without a word to hwloc, oneTBB binds it to all cores during each run."""
    done = subprocess.run(
        [sys.executable, "-c", _PINNED], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "True"
