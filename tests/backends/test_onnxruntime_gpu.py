"""CUDA's provider of onnxruntime: graphs and their memory, what is really used, errors told apart.

The library is a fake that computes on the CPU; no GPU is needed.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from backends.fake_cuda import CPU, CUDA, FakeCuda
from coinfer.backends.base import device_bytes, note_of
from coinfer.backends.cuda_driver import gpu_names
from coinfer.backends.device_faults import Fault, LostDevices, fault_of
from coinfer.backends.onnxruntime import OnnxRuntimeBackend, providers
from coinfer.backends.onnxruntime.gpu import Gpu
from coinfer.backends.onnxruntime.gpu_compiling import compiled_for_gpu
from coinfer.backends.onnxruntime.gpu_value import GpuValue, on_gpu
from coinfer.backends.values import joined, parted, run_part, to_host
from coinfer.errors import BackendError, ExecutionError
from coinfer.graph.extract import extract
from coinfer.graph.partition import partition_at
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.testing.models import (
    Example,
    examples,
    model_from_text,
    tiny_linear,
    two_convs,
    two_inputs,
)

GPU0 = Processor(name="cuda0", backend="onnxruntime", device="CUDA:0", units=frozenset({"cuda:0"}))
OTHER = dataclasses.replace(GPU0, name="other", units=frozenset({"cuda:0.s2"}))
SHAPE = "net (float[N,4] x) => (float[N,4] y) { a = Relu(x) y = Tanh(a) }"
MEMORY = RuntimeError("BFCArena: Failed to allocate memory for requested buffer of size 64")
STICKY = RuntimeError("CUDA failure 700: an illegal memory access was encountered ; GPU=0")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    fake.install(monkeypatch)
    return fake


def loaded(cuda: FakeCuda, model: Model, gpu: Gpu | None = None, **options: str) -> Any:
    """Load a model; what its runs take is on the fake's clock."""
    processor = dataclasses.replace(GPU0, options=options)
    backend = OnnxRuntimeBackend()
    common = {"what": "it", **backend._common(model, processor), "clock": cuda.clock}
    provider = providers.provider_of(processor, "it")
    return compiled_for_gpu(model, processor, provider, common, gpu or Gpu("CUDA:0", LostDevices()))


def check(example: Example, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
    for name, reference in example.reference(inputs).items():
        error = np.linalg.norm(outputs[name] - reference) / np.linalg.norm(reference)
        assert error <= 1e-6  # sums of some ten products in another order


def ran(session: Any, cuda: FakeCuda, **inputs: np.ndarray) -> list[str]:
    cuda.log.clear()
    session.run(inputs)
    return [*cuda.log]


@pytest.mark.parametrize("example", examples(), ids=lambda e: e.model.name)
def test_answers_are_right_however_often_a_size_comes(cuda: FakeCuda, example: Example) -> None:
    session = loaded(cuda, example.model)
    for seed, batch in enumerate((1, 2, 1, 1, 2, 3, 2, 1)):
        inputs = example.model.sample_inputs(batch=batch, seed=seed)
        check(example, inputs, session.run(inputs))


def test_answers_survive_the_next_runs(cuda: FakeCuda) -> None:
    example = tiny_linear()
    session = loaded(cuda, example.model)
    feeds = [example.model.sample_inputs(seed=seed) for seed in range(5)]
    answers = [session.run(feed) for feed in feeds]
    for feed, answer in zip(feeds, answers, strict=True):
        check(example, feed, answer)


def test_a_size_is_recorded_when_it_comes_again_and_then_repeated(cuda: FakeCuda) -> None:
    session = loaded(cuda, tiny_linear().model)
    assert cuda.log == ["launch", *["launch"] * 5, "record", *["repeat"] * 5, "repeat"]
    assert ran(session, cuda, x=np.ones((1, 4), np.float32)) == ["repeat"]
    assert ran(session, cuda, x=np.ones((2, 4), np.float32)) == ["launch"]
    assert "record" in ran(session, cuda, x=np.ones((2, 4), np.float32))
    assert session.recorded == 2


def test_what_is_slower_as_a_graph_is_launched(cuda: FakeCuda) -> None:
    cuda.graph_s = 3.0
    session = loaded(cuda, tiny_linear().model)
    assert session.recorded == 0
    assert ran(session, cuda, x=np.ones((1, 4), np.float32)) == ["launch"]


def test_each_thread_records_for_itself_and_none_mixes_data(cuda: FakeCuda) -> None:
    gpu = Gpu("CUDA:0", LostDevices())
    pairs = [(each, loaded(cuda, each.model, gpu)) for each in (tiny_linear(), two_inputs())]

    def run(number: int) -> None:
        example, session = pairs[number % 2]
        inputs = example.model.sample_inputs(batch=1 + number % 3, seed=number)
        check(example, inputs, session.run(inputs))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(60)))


def test_what_cannot_be_recorded_gets_a_session_anew_and_is_launched(cuda: FakeCuda) -> None:
    cuda.can_record = False
    example = tiny_linear()
    session = loaded(cuda, example.model)
    assert [told["enable_cuda_graph"] for told in cuda.made] == ["1", "0"]
    for seed in range(3):
        inputs = example.model.sample_inputs(seed=seed)
        check(example, inputs, session.run(inputs))
    assert cuda.log.count("record") == 1


def test_buffers_and_graphs_are_bounded(cuda: FakeCuda) -> None:
    session = loaded(cuda, tiny_linear().model)
    for batch in range(1, 101):
        for _ in range(2):
            session.run({"x": np.ones((batch, 4), np.float32)})
    assert session.recorded <= 16
    assert cuda.log.count("record") == 64


def test_an_evicted_size_comes_back_with_buffers_of_its_own(cuda: FakeCuda) -> None:
    example = tiny_linear()
    session = loaded(cuda, example.model)
    for batch in (*range(1, 20), 1, 1, 1):
        for seed in range(2):
            inputs = example.model.sample_inputs(batch=batch, seed=seed)
            check(example, inputs, session.run(inputs))


def test_what_has_no_sizes_beforehand_is_not_recorded(cuda: FakeCuda) -> None:
    model = model_from_text("net (float[N] x) => (int64[1,M] y) { y = NonZero(x) }", name="net")
    session = loaded(cuda, model)
    for count in (3, 1, 2):
        x = np.array([1.0] * count + [0.0] * (4 - count), np.float32)
        assert session.run({"x": x})["y"].shape == (1, count)
    assert "record" not in cuda.log


def test_graphs_are_off_where_the_processor_says_so(cuda: FakeCuda) -> None:
    loaded(cuda, tiny_linear().model, enable_cuda_graph="0")
    assert [told["enable_cuda_graph"] for told in cuda.made] == ["0"]
    assert set(cuda.log) == {"launch"}


def test_graphs_that_must_be_are_recorded_though_slower_or_refused(cuda: FakeCuda) -> None:
    cuda.graph_s = 3.0
    assert loaded(cuda, tiny_linear().model, enable_cuda_graph="1").recorded == 1
    cuda.untaken = ["Tanh"]
    with pytest.raises(BackendError, match="CUDA Graph"):
        loaded(cuda, model_from_text(SHAPE, name="net"), enable_cuda_graph="1")


def test_what_fell_back_to_the_cpu_is_said_and_not_recorded(cuda: FakeCuda) -> None:
    cuda.untaken = ["Tanh"]
    session = loaded(cuda, model_from_text(SHAPE, name="net"))
    assert session.placement().operators == {CUDA: 1, "CPUExecutionProvider": 1}
    assert note_of(session) == (
        f"{CUDA} does not take 1 of its operators, which the CPU computes: 1 Tanh"
    )
    assert "record" not in cuda.log
    assert note_of(loaded(cuda, tiny_linear().model)) == ""


def test_a_model_of_which_all_fell_back_is_refused(cuda: FakeCuda) -> None:
    cuda.untaken = ["Relu", "Tanh"]
    with pytest.raises(BackendError, match="took none of its operators"):
        loaded(cuda, model_from_text(SHAPE, name="net"))


def test_what_it_supports_is_what_it_takes(cuda: FakeCuda) -> None:
    cuda.untaken = ["Tanh"]
    model = model_from_text(SHAPE, name="net")
    assert OnnxRuntimeBackend().supported(model, GPU0) == {"a"}


def test_out_of_memory_all_give_back_and_it_tries_again(cuda: FakeCuda) -> None:
    gpu = Gpu("CUDA:0", LostDevices())
    example, other = tiny_linear(), two_inputs()
    session, idle = loaded(cuda, example.model, gpu), loaded(cuda, other.model, gpu)
    inputs = example.model.sample_inputs(seed=1)
    cuda.errors, cuda.log = [MEMORY], []
    check(example, inputs, session.run(inputs))
    assert cuda.log == ["shrink", "launch"]
    for seed in range(3):
        inputs = other.model.sample_inputs(seed=seed)
        check(other, inputs, idle.run(inputs))
    assert idle.recorded == 1  # anew: the old one used what was given back


def test_its_buffers_are_free_before_it_tries_again(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    gc.collect()  # what other tests left
    gpu, before = Gpu("CUDA:0", LostDevices()), cuda.buffers
    session = loaded(cuda, tiny_linear().model, gpu)
    seen: list[int] = []
    monkeypatch.setattr(gpu, "relieve", lambda: seen.append(cuda.buffers - before))
    cuda.errors = [RuntimeError("out of memory")]  # one that nobody keeps, with its frames
    session.run(tiny_linear().model.sample_inputs())
    assert seen == [0]


def test_out_of_memory_twice_fails_that_run_only(cuda: FakeCuda) -> None:
    example = tiny_linear()
    session = loaded(cuda, example.model)
    inputs = example.model.sample_inputs(seed=1)
    cuda.errors = [MEMORY, MEMORY]
    with pytest.raises(ExecutionError, match=r"CUDA:0 is out of memory.*load fewer models"):
        session.run(inputs)
    check(example, inputs, session.run(inputs))


def test_a_sticky_error_loses_the_gpu_for_all_its_sessions(cuda: FakeCuda) -> None:
    gpu = Gpu("CUDA:0", LostDevices())
    model = tiny_linear().model
    session, other = loaded(cuda, model, gpu), loaded(cuda, model, gpu)
    cuda.errors = [STICKY]
    for each in (session, other):
        with pytest.raises(ExecutionError, match=r"CUDA:0 is lost for this process.*start a new"):
            each.run(model.sample_inputs())
    with pytest.raises(BackendError, match="CUDA:0 is lost for this process"):
        loaded(cuda, model, gpu)


def test_a_gpu_that_is_lost_while_a_model_is_loaded_is_lost_for_all(cuda: FakeCuda) -> None:
    gpu = Gpu("CUDA:0", LostDevices())
    model = tiny_linear().model
    session = loaded(cuda, model, gpu)
    cuda.load_error = STICKY
    with pytest.raises(BackendError, match="CUDA:0 is lost for this process"):
        loaded(cuda, model, gpu)
    with pytest.raises(ExecutionError, match="CUDA:0 is lost for this process"):
        session.run(model.sample_inputs())


def test_another_error_fails_that_run_only(cuda: FakeCuda) -> None:
    example = tiny_linear()
    session = loaded(cuda, example.model)
    inputs = example.model.sample_inputs(seed=1)
    cuda.errors = [RuntimeError("invalid argument")]
    with pytest.raises(ExecutionError, match="invalid argument"):
        session.run(inputs)
    check(example, inputs, session.run(inputs))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size)", Fault.MEMORY),
        ("Failed to allocate memory for requested buffer of size 4194304", Fault.MEMORY),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", Fault.MEMORY),
        ("CUDA failure 719: unspecified launch failure", Fault.LOST),
        ("CUDA failure 710: device-side assert triggered", Fault.LOST),
        ("CUDA failure 900: operation not permitted when stream is capturing", Fault.OTHER),
        ("Non-zero status code returned while running Gemm node", Fault.OTHER),
    ],
)
def test_errors_of_the_library_are_told_apart(text: str, fault: Fault) -> None:
    assert fault_of(RuntimeError(text)) is fault


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("can_copy", [True, False])
def test_what_parts_hand_on_stays_on_the_gpu(cuda: FakeCuda, batch: int, can_copy: bool) -> None:
    cuda.can_copy = can_copy
    example, gpu = two_convs(), Gpu("CUDA:0", LostDevices())
    partition = partition_at(example.model, [1], {"it": frozenset(range(3))})
    parts = (extract(example.model, partition, Span(at, at)) for at in range(2))
    first, second = (loaded(cuda, part, gpu) for part in parts)
    for seed in range(4):
        inputs = example.model.sample_inputs(batch=batch, seed=seed)
        between = run_part(first, inputs)
        assert all(isinstance(value, GpuValue) == can_copy for value in between.values())
        check(example, inputs, to_host(run_part(second, between)))
        check(example, inputs, second.run(to_host(between)))
        if can_copy:
            check(example, inputs, to_host(run_part(second, second.owned(between))))
    assert ("pass the host" in note_of(first)) is not can_copy


def test_values_on_the_gpu_are_joined_on_the_host_and_parted(cuda: FakeCuda) -> None:
    gpu = Gpu("CUDA:0", LostDevices())
    arrays = [np.full((n, 2), float(n), np.float32) for n in (1, 2)]
    values = [GpuValue(on_gpu(each, gpu), gpu, each.shape, each.dtype) for each in arrays]
    together = joined(values)
    np.testing.assert_array_equal(to_host({"v": together})["v"], np.concatenate(arrays))
    parts = parted(values[1].copy(), [1])
    assert [to_host({"v": part})["v"].shape for part in parts] == [(1, 2), (1, 2)]


def test_a_closed_session_refuses_to_run(cuda: FakeCuda) -> None:
    session = loaded(cuda, tiny_linear().model)
    session.close()
    session.close()
    session.give_back()
    with pytest.raises(ExecutionError, match="closed"):
        session.run(tiny_linear().model.sample_inputs())


def test_it_says_what_its_weights_take_there(cuda: FakeCuda) -> None:
    assert device_bytes(loaded(cuda, tiny_linear().model)) == (4 * 3 + 3) * 4


def test_fp32_is_full_and_what_a_processor_says_goes_above(cuda: FakeCuda) -> None:
    loaded(cuda, tiny_linear().model)
    told = cuda.made[0]
    assert (told["use_tf32"], told["device_id"]) == ("0", "0")
    assert told["cudnn_conv_algo_search"] == "EXHAUSTIVE"
    cuda.made.clear()
    loaded(cuda, tiny_linear().model, use_tf32="1", cudnn_conv_algo_search="DEFAULT")
    assert (cuda.made[0]["use_tf32"], cuda.made[0]["cudnn_conv_algo_search"]) == ("1", "DEFAULT")


def test_of_several_sizes_none_is_searched_for_long(cuda: FakeCuda) -> None:
    model = model_from_text("net (float[N,S] x) => (float[N,S] y) { y = Relu(x) }", name="net")
    loaded(cuda, model)
    assert cuda.made[0]["cudnn_conv_algo_search"] == "HEURISTIC"
    assert cuda.log == []  # nobody knows which size comes


def test_the_backend_finds_each_gpu_and_loads_there(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda.gpus = ("H200", "L4")
    backend = OnnxRuntimeBackend()
    assert [device.name for device in backend.devices()] == ["CPU", "CUDA:0", "CUDA:1"]
    assert "L4" in backend.devices()[2].description
    session = backend.load(tiny_linear().model, dataclasses.replace(GPU0, device="CUDA:1"))
    assert cuda.made[0]["device_id"] == "1"
    session.close()
    cuda.gpus = ()  # the wheel has the provider all the same
    assert [device.name for device in backend.devices()] == ["CPU"]


@pytest.mark.parametrize("gpus", [(), ("H200",)])
def test_tensorrt_of_a_wheel_has_no_device_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, gpus: tuple[str, ...]
) -> None:
    cuda = FakeCuda(gpus)
    cuda.install(monkeypatch)
    monkeypatch.setattr(
        cuda, "get_available_providers", lambda: ["TensorrtExecutionProvider", CUDA, CPU]
    )
    expected = ["CPU", "Tensorrt:0", "CUDA:0"] if gpus else ["CPU"]
    assert [device.name for device in OnnxRuntimeBackend().devices()] == expected


def test_each_processor_of_a_gpu_has_a_stream_and_so_a_session_of_its_own() -> None:
    backend = OnnxRuntimeBackend()
    assert backend.sharing_key(GPU0) != backend.sharing_key(OTHER)
    again = dataclasses.replace(GPU0, name="again")
    assert backend.sharing_key(GPU0) == backend.sharing_key(again)


class _Driver:
    """CUDA's driver with two GPUs."""

    def __init__(self, works: int = 0) -> None:
        self.cuInit: Callable[[int], int] = lambda _flags: works

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 2
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:  # noqa: N802
        device._obj.value = number
        return 0

    def cuDeviceGetName(self, text: Any, size: int, device: ctypes.c_int) -> int:  # noqa: N802
        text.value = f"card {device.value}".encode()[:size]
        return device.value  # it fails for the second


def test_the_driver_is_asked_for_gpus() -> None:
    def missing(_name: str) -> Any:
        raise OSError("libcuda.so.1: cannot open shared object file")

    assert gpu_names(lambda _name: _Driver()) == ("card 0", "GPU 1")
    assert gpu_names(lambda _name: _Driver(works=100)) == ()
    assert gpu_names(missing) == ()


def test_nothing_runs_while_something_is_recorded() -> None:
    gpu = Gpu("CUDA:0", LostDevices())
    log: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def record() -> None:
        with gpu.recording():
            log.append("recorded")

    def run() -> None:
        with gpu.running():
            log.append("ran")

    def hold() -> None:
        with gpu.running():
            inside.set()
            leave.wait()
            log.append("held")

    holder, recorder = threading.Thread(target=hold), threading.Thread(target=record)
    holder.start()
    inside.wait()
    recorder.start()
    while not gpu._recorders:
        pass
    late = threading.Thread(target=run)  # it comes after the recorder, and must not go before it
    late.start()
    leave.set()
    for thread in (holder, recorder, late):
        thread.join()
    assert log == ["held", "recorded", "ran"]
