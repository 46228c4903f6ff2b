"""What is run on a device: in order, complete when it is handed out, and told apart when it fails.

The stream is a fake that does everything as late as it may.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from backends.late_stream import LateCopies, LateStream  # noqa: E402
from coinfer.backends import get_backend  # noqa: E402
from coinfer.backends.base import device_bytes  # noqa: E402
from coinfer.backends.device_faults import Fault, LostDevices, fault_of  # noqa: E402
from coinfer.backends.torch.device_session import (  # noqa: E402
    DeviceSession,
    DeviceValue,
)
from coinfer.backends.torch.launcher import Launcher  # noqa: E402
from coinfer.backends.torch.program import Program  # noqa: E402
from coinfer.backends.torch.waiting_program import WaitingProgram  # noqa: E402
from coinfer.backends.values import joined, parted, run_part, to_host  # noqa: E402
from coinfer.errors import ExecutionError  # noqa: E402
from coinfer.graph.extract import extract  # noqa: E402
from coinfer.graph.partition import partition_at  # noqa: E402
from coinfer.machine.processor import Processor  # noqa: E402
from coinfer.machine.span import Span  # noqa: E402
from coinfer.model import Model  # noqa: E402
from coinfer.testing.models import (  # noqa: E402
    Example,
    examples,
    int_gather,
    model_from_text,
    tiny_linear,
    two_convs,
    two_inputs,
)

CPU = Processor(name="cpu", backend="torch", units=frozenset({"core0"}))


def program_of(model: Model, **options: Any) -> Program:
    device = torch.device("cpu")
    return Program.of(model, compute=torch.float32, device=device, what="it", **options)


def launcher_of(model: Model, stream: LateStream, **options: Any) -> Launcher:
    return Launcher(run=program_of(model).run, stream=stream, **options)


def session_of(model: Model, stream: LateStream, lost: LostDevices | None = None) -> DeviceSession:
    waiting = WaitingProgram.of(program_of(model, apart=True))
    return DeviceSession(
        waiting.load(LateCopies()),
        model,
        stream,
        what="it",
        device="CUDA:0",
        precision="fp32",
        lost=lost or LostDevices(),
    )


def check(example: Example, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
    for name, reference in example.reference(inputs).items():
        error = np.linalg.norm(outputs[name] - reference) / np.linalg.norm(reference)
        assert error <= 1e-6  # sums of some ten products in another order


@pytest.mark.parametrize("example", examples(), ids=lambda e: e.model.name)
def test_outputs_are_complete_however_often_a_size_comes(example: Example) -> None:
    session = session_of(example.model, LateStream())
    for seed, batch in enumerate((1, 2, 1, 1, 2, 3, 1)):
        inputs = example.model.sample_inputs(batch=batch, seed=seed)
        check(example, inputs, session.run(inputs))


def test_outputs_survive_the_next_runs() -> None:
    example = tiny_linear()
    session = session_of(example.model, LateStream())
    feeds = [example.model.sample_inputs(seed=seed) for seed in range(5)]
    answers = [session.run(feed) for feed in feeds]
    for feed, answer in zip(feeds, answers, strict=True):
        check(example, feed, answer)


def test_runs_of_several_threads_do_not_mix_their_data() -> None:
    example = tiny_linear()
    session = session_of(example.model, LateStream())
    feeds = [example.model.sample_inputs(batch=1 + i % 3, seed=i) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for feed, answer in zip(feeds, pool.map(session.run, feeds), strict=True):
            check(example, feed, answer)


def test_two_sessions_of_a_processor_do_not_mix_their_data() -> None:
    stream = LateStream()
    one, other = tiny_linear(), two_inputs()
    sessions = [(each, session_of(each.model, stream)) for each in (one, other)]
    jobs = [(*sessions[i % 2], i) for i in range(40)]

    def run(job: tuple[Example, DeviceSession, int]) -> None:
        example, session, seed = job
        inputs = example.model.sample_inputs(seed=seed)
        check(example, inputs, session.run(inputs))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, jobs))


def test_a_size_is_recorded_when_it_comes_again_and_then_replayed() -> None:
    stream = LateStream()
    example = tiny_linear()
    launcher = launcher_of(example.model, stream)
    x = torch.ones(1, 4)
    launcher.execute([x])
    assert stream.log == ["copy", "launch", "copy", "finish"]
    launcher.execute([x])
    assert "capture" in stream.log
    stream.log.clear()
    launcher.execute([x])
    assert stream.log == ["copy", "replay", "copy", "finish"]
    assert launcher.recorded == 1


def test_what_is_slower_recorded_is_launched() -> None:
    stream = LateStream()
    stream.recorded_s = 3.0
    launcher = launcher_of(tiny_linear().model, stream)
    for _ in range(2):
        launcher.execute([torch.ones(1, 4)])
    stream.log.clear()
    launcher.execute([torch.ones(1, 4)])
    assert stream.log == ["copy", "launch", "copy", "finish"]


def test_what_cannot_be_recorded_is_launched_and_not_tried_again() -> None:
    stream = LateStream()
    stream.can_capture = False
    example = tiny_linear()
    launcher = launcher_of(example.model, stream)
    x = example.model.sample_inputs(seed=3)
    for _ in range(4):
        (y,) = launcher.execute([torch.from_numpy(x["x"])])
        check(example, x, {"y": y.numpy()})
    assert stream.log.count("capture") == 1


def test_recordings_are_bounded() -> None:
    launcher = launcher_of(tiny_linear().model, LateStream())
    for batch in range(1, 41):
        for _ in range(2):
            launcher.execute([torch.ones(batch, 4)])
    assert launcher.recorded <= 16


def test_out_of_memory_it_drops_what_it_keeps_and_tries_again() -> None:
    stream = LateStream()
    example = tiny_linear()
    session = session_of(example.model, stream)
    inputs = example.model.sample_inputs(seed=1)
    for _ in range(3):
        session.run(inputs)
    stream.errors = [RuntimeError("out of memory")]
    check(example, inputs, session.run(inputs))
    assert stream.log.count("relieve") == 1


def test_out_of_memory_twice_fails_that_run_only() -> None:
    stream = LateStream()
    example = tiny_linear()
    session = session_of(example.model, stream)
    inputs = example.model.sample_inputs(seed=1)
    stream.errors = [RuntimeError("out of memory"), RuntimeError("out of memory")]
    with pytest.raises(ExecutionError, match=r"CUDA:0 is out of memory.*load fewer models"):
        session.run(inputs)
    check(example, inputs, session.run(inputs))


def test_a_device_that_is_lost_refuses_all_sessions_at_once_and_says_why() -> None:
    lost = LostDevices()
    stream = LateStream()
    example = tiny_linear()
    session = session_of(example.model, stream, lost)
    other = session_of(example.model, LateStream(), lost)
    inputs = example.model.sample_inputs()
    stream.errors = [RuntimeError("the context is lost")]
    for each in (session, other):
        with pytest.raises(ExecutionError, match=r"CUDA:0 is lost for this process.*start a new"):
            each.run(inputs)


def test_another_error_fails_that_run_only() -> None:
    stream = LateStream()
    example = tiny_linear()
    session = session_of(example.model, stream)
    inputs = example.model.sample_inputs(seed=1)
    stream.errors = [RuntimeError("invalid argument")]
    with pytest.raises(ExecutionError, match="invalid argument"):
        session.run(inputs)
    check(example, inputs, session.run(inputs))


def test_errors_of_cuda_are_told_apart() -> None:
    assert fault_of(torch.OutOfMemoryError("CUDA out of memory. Tried ...")) is Fault.MEMORY
    assert fault_of(RuntimeError("CUDA error: device-side assert triggered")) is Fault.LOST
    assert fault_of(RuntimeError("CUDA error: an illegal memory access")) is Fault.LOST
    assert fault_of(RuntimeError("shapes cannot be multiplied")) is Fault.OTHER


def test_a_row_that_is_not_there_is_refused_before_it_reaches_the_device() -> None:
    stream = LateStream()
    example = int_gather()
    session = session_of(example.model, stream)
    with pytest.raises(ExecutionError, match="input 'ids' has 8, but there are 8 rows"):
        session.run({"ids": np.array([[0, 8, 1]])})
    assert stream.log == []
    inputs = {"ids": np.array([[0, -8, 7]])}
    check(example, inputs, session.run(inputs))


@pytest.mark.parametrize("batch", [1, 3])
def test_what_parts_hand_on_stays_on_the_device(batch: int) -> None:
    example = two_convs()
    partition = partition_at(example.model, [1], {"it": frozenset(range(3))})
    stream = LateStream()
    first, second = (
        session_of(extract(example.model, partition, Span(at, at)), stream) for at in range(2)
    )
    for seed in range(4):
        inputs = example.model.sample_inputs(batch=batch, seed=seed)
        between = run_part(first, inputs)
        assert all(isinstance(value, DeviceValue) for value in between.values())
        check(example, inputs, to_host(run_part(second, between)))
        check(example, inputs, second.run(to_host(between)))
        check(example, inputs, to_host(run_part(second, second.owned(between))))


def test_values_on_the_device_are_joined_and_parted_along_the_batch() -> None:
    tensors = [torch.full((n, 2), float(n)) for n in (1, 2)]
    values = [DeviceValue(each, torch.device("cpu")) for each in tensors]
    together = joined(values)
    assert isinstance(together, DeviceValue)
    parts = parted(together, [1])
    for part, tensor in zip(parts, tensors, strict=True):
        np.testing.assert_array_equal(to_host({"v": part})["v"], tensor.numpy())
    mixed = joined([values[0], np.zeros((1, 2), np.float32)])
    assert isinstance(mixed, np.ndarray)
    assert mixed.shape == (2, 2)


def test_an_express_processor_of_a_gpu_has_a_session_and_so_a_stream_of_its_own() -> None:
    backend = get_backend("torch")
    below = replace(CPU, device="CUDA:0", units=frozenset({"cuda:0.s1"}))
    above = replace(
        below, units=frozenset({"cuda:0+"}), overlays=below.units, options={"priority": "high"}
    )
    assert backend.sharing_key(below) != backend.sharing_key(above)
    other = replace(above, name="other", overlays=frozenset({"cuda:0.s2"}))
    assert backend.sharing_key(other) == backend.sharing_key(above)


def test_a_closed_session_refuses_to_run() -> None:
    session = session_of(tiny_linear().model, LateStream())
    session.close()
    session.close()
    with pytest.raises(ExecutionError, match="closed"):
        session.run(tiny_linear().model.sample_inputs())


def test_it_says_what_its_weights_take_on_the_device() -> None:
    session = session_of(tiny_linear().model, LateStream())
    # Three sums behind four by three weights, where a tensor may begin on a GPU.
    assert device_bytes(session) == 512 + 3 * 4
    assert device_bytes(get_backend("torch").load(tiny_linear().model, CPU)) == 0


@pytest.mark.parametrize(
    ("text", "waits"),
    [
        ("(float[N,4] x) => (float[M,2] y) { y = Reshape(x, s) }", False),
        ("(float[N,4] x, int64[2] s) => (float[A,B] y) { y = Reshape(x, s) }", True),
        ("(float[N] x) => (int64[1,M] y) { y = NonZero(x) }", True),
        ("(float[N,4] x) => (float[A,B] y) { n = Shape(x)  y = Expand(x, n) }", False),
    ],
)
def test_what_waits_for_values_to_learn_a_shape_is_not_recorded(text: str, waits: bool) -> None:
    constant = "<int64[2] s = {-1, 2}>" if not waits and "Reshape" in text else ""
    head, body = text.split(" {")
    program = program_of(model_from_text(f"agraph {head} {constant} {{{body}", name="m"))
    assert program.waits is waits
