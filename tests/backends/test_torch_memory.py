"""Weights on a device: they come beside what is computed, once, and go when nobody reads them."""

from __future__ import annotations

import dataclasses
import gc
import logging
import re
import threading
from contextlib import closing

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from backends.fake_gpus import GPU, FakeGpus  # noqa: E402
from backends.late_stream import LateCopies, LateStream  # noqa: E402
from coinfer import Engine, compress  # noqa: E402
from coinfer.backends.base import Session, device_bytes, reload_s, weights_key  # noqa: E402
from coinfer.backends.torch.backend import TorchBackend  # noqa: E402
from coinfer.backends.torch.cuda_copies import CudaCopies, PinnedRoom  # noqa: E402
from coinfer.backends.torch.device_session import DeviceValue  # noqa: E402
from coinfer.backends.torch.launcher import Launcher  # noqa: E402
from coinfer.backends.torch.program import Program  # noqa: E402
from coinfer.backends.torch.waiting_program import WaitingProgram  # noqa: E402
from coinfer.backends.values import joined, parted, run_part, to_host  # noqa: E402
from coinfer.errors import BackendError, ExecutionError  # noqa: E402
from coinfer.graph.extract import extract  # noqa: E402
from coinfer.graph.fusing.fused_model import fuse_models  # noqa: E402
from coinfer.graph.partition import partition_at  # noqa: E402
from coinfer.graph.partition_options import Mode, PartitionOptions  # noqa: E402
from coinfer.machine.processor import Processor  # noqa: E402
from coinfer.machine.profile import Measurement, Profile, ProfileKey  # noqa: E402
from coinfer.machine.span import Span  # noqa: E402
from coinfer.model import Model, model_from_ir  # noqa: E402
from coinfer.profiling.fused_trial import fused_trial  # noqa: E402
from coinfer.runtime.model_store import ModelStore  # noqa: E402
from coinfer.testing.models import model_from_text, tiny_linear, two_convs  # noqa: E402
from coinfer.zoo import registry  # noqa: E402

FIRST = Processor(name="gpu0_s1", backend="torch", device=GPU, units=frozenset({"s1"}))
SECOND = Processor(name="gpu0_s2", backend="torch", device=GPU, units=frozenset({"s2"}))


def layer(name: str, scale: float) -> Model:
    """y = x W with 64 by 64 weights, all of them `scale`."""
    weights = ", ".join([str(scale)] * 4096)
    return model_from_text(
        f"agraph (float[1,64] x) => (float[1,64] y) <float[64,64] w = {{{weights}}}> "
        "{ y = MatMul(x, w) }",
        name=name,
    )


SIZE = 64 * 64 * 4
X = {"x": np.ones((1, 64), np.float32)}


def waiting_of(model: Model) -> WaitingProgram:
    device = torch.device("cpu")
    program = Program.of(model, compute=torch.float32, device=device, what="it", apart=True)
    return WaitingProgram.of(program)


def test_a_program_whose_constants_are_apart_computes_the_same_once_they_are_placed() -> None:
    example = tiny_linear()
    waiting = waiting_of(example.model)
    assert all(waiting.program.slots[slot] is None for slot in waiting.program.apart)
    loaded = waiting.load(LateCopies())
    loaded.upload.finish()
    inputs = example.model.sample_inputs(seed=1)
    (made,) = loaded.program.run([torch.from_numpy(inputs["x"])])
    (wanted,) = example.reference(inputs).values()
    np.testing.assert_allclose(made.numpy(), wanted, rtol=1e-5)


def test_the_first_execution_waits_for_the_copy_on_its_stream_and_later_ones_do_not() -> None:
    log: list[str] = []
    loaded = waiting_of(layer("m", 0.5)).load(LateCopies(log))
    launcher = Launcher(run=loaded.program.run, stream=LateStream(log), upload=loaded.upload)
    (made,) = launcher.execute([torch.ones(1, 64)])
    assert made.numpy().tolist() == [[32.0] * 64], "nothing was computed of what is not there yet"
    assert log == ["upload", "wait", "copy", "copied", "launch", "copy", "finish"]
    log.clear()
    launcher.records = False
    launcher.execute([torch.ones(1, 64)])
    assert log == ["copy", "launch", "copy", "finish"]


def test_loading_keeps_no_stream_waiting_while_weights_are_copied() -> None:
    gpus = FakeGpus()
    backend = TorchBackend(gpus)
    with closing(backend.load(layer("m", 1.0), FIRST)):
        log = gpus.log
        assert log[:2] == ["upload", "copied"], "the thread that loads waits, before any launch"
        assert "wait" in log[2:4]


def test_weights_are_copied_once_for_all_streams_and_freed_with_the_last() -> None:
    gpus = FakeGpus()
    backend = TorchBackend(gpus)
    model = layer("m", 1.0)
    one, other = backend.load(model, FIRST), backend.load(model, SECOND)
    assert gpus.log.count("upload") == 1
    assert backend.device_use(GPU).held_bytes == SIZE  # type: ignore[union-attr]
    assert weights_key(backend, FIRST) == weights_key(backend, SECOND)
    one.close()
    gc.collect()
    assert "freed" not in gpus.log
    assert other.run_part(X)["y"][0, 0] == 64
    other.close()
    gc.collect()
    assert gpus.log[-1] == "freed"
    assert backend.device_use(GPU).held_bytes == 0  # type: ignore[union-attr]


def test_another_precision_has_weights_of_its_own() -> None:
    gpus = FakeGpus()
    backend = TorchBackend(gpus)
    model = layer("m", 1.0)
    half = dataclasses.replace(SECOND, precision="fp16")
    with closing(backend.load(model, FIRST)), closing(backend.load(model, half)):
        assert gpus.copy_stream.held == SIZE + SIZE // 2
    assert weights_key(backend, FIRST) != weights_key(backend, half)


def test_nothing_is_freed_while_a_launch_that_reads_it_is_in_flight() -> None:
    gpus = FakeGpus()
    backend = TorchBackend(gpus)
    session = backend.load(layer("m", 1.0), FIRST)
    (stream,) = gpus.made
    closer = threading.Thread(target=session.close)

    def finishing() -> None:
        stream.finishing = lambda: None
        closer.start()
        closer.join(0.02)  # it must wait for the run; without a lock it has ended by now
        gc.collect()
        assert "freed" not in gpus.log

    stream.finishing = finishing
    gpus.log.clear()
    assert session.run_part(X)["y"][0, 0] == 64
    closer.join()
    gc.collect()
    assert gpus.log == ["copy", "replay", "copy", "finish", "freed"]


def test_what_is_queued_is_done_before_memory_is_given_back() -> None:
    gpus = FakeGpus()
    session = TorchBackend(gpus).load(layer("m", 1.0), FIRST)
    (stream,) = gpus.made
    gpus.log.clear()
    stream.full = 1  # no memory for an output, when the launch is under way
    assert session.run_part(X)["y"][0, 0] == 64
    assert gpus.log[:4] == ["copy", "replay", "finish", "relieve"]
    session.close()


def test_weights_wait_in_pinned_memory_while_the_content_is_used() -> None:
    gpus = FakeGpus()
    backend = TorchBackend(gpus)
    model = layer("m", 1.0)
    backend.keep_ready(model, FIRST)
    backend.keep_ready(model, SECOND)
    assert gpus.copy_stream.pinned == SIZE
    with closing(backend.load(model, FIRST)) as session:
        del model
        gc.collect()
        assert gpus.copy_stream.pinned == 0, "nothing can load it again"
        assert session.run_part(X)["y"][0, 0] == 64


def test_a_reload_copies_and_records_and_finds_nothing_out_again() -> None:
    gpus = FakeGpus()
    backend = TorchBackend(gpus)
    model = layer("m", 1.0)
    backend.keep_ready(model, FIRST)
    with closing(backend.load(model, FIRST)) as session:
        assert reload_s(session) > 0
    gpus.log.clear()
    with closing(backend.load(model, FIRST)) as session:
        assert gpus.log == [
            *("upload", "copied", "wait", "copy", "finish", "capture", "replay", "copy", "finish")
        ]
        assert session.run_part(X)["y"][0, 0] == 64
        assert device_bytes(session) == SIZE + 64 * 4  # and what a request is copied into


def test_where_the_host_refuses_to_pin_loading_works() -> None:
    gpus = FakeGpus()
    gpus.copy_stream.can_pin = False
    backend = TorchBackend(gpus)
    model = layer("m", 1.0)
    backend.keep_ready(model, FIRST)
    with closing(backend.load(model, FIRST)) as session:
        assert session.run_part(X)["y"][0, 0] == 64


def test_pinned_memory_is_bounded_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    room = PinnedRoom(100)
    with caplog.at_level(logging.WARNING):
        assert [room.take(80), room.take(80)] == [True, False]
        room.refused("too much")
        room.refused("too much")
    assert len(caplog.records) == 1
    room.give_back(80)
    assert room.take(100)


def test_without_memory_for_weights_it_gives_back_what_it_keeps_and_tries_again() -> None:
    gpus = FakeGpus()
    backend = TorchBackend(gpus)
    gpus.copy_stream.errors = [RuntimeError("out of memory")]
    with closing(backend.load(layer("m", 1.0), FIRST)) as session:
        assert session.run_part(X)["y"][0, 0] == 64
    assert gpus.log[0] == "relieve"
    gpus.copy_stream.errors = [RuntimeError("out of memory")] * 2
    with pytest.raises(BackendError, match="CUDA:0 has no memory left for it"):
        backend.load(layer("n", 1.0), FIRST)


def test_out_of_memory_other_sessions_of_the_gpu_give_back_what_they_keep() -> None:
    gpus = FakeGpus()
    backend = TorchBackend(gpus)
    one, other = (backend.load(layer(f"m{k}", float(k)), p) for k, p in ((1, FIRST), (2, SECOND)))
    (stream, _) = gpus.made
    kept = device_bytes(other)
    assert kept > SIZE
    stream.full = 2  # also once it has given back what it keeps itself
    assert one.run_part(X)["y"][0, 0] == 64
    assert device_bytes(other) == SIZE
    assert gpus.log.count("relieve") == 2
    assert other.run_part(X)["y"][0, 0] == 128
    assert device_bytes(other) == kept
    with other._stream.lock:  # what runs keeps what it has
        stream.full = 2
        with pytest.raises(ExecutionError, match="CUDA:0 is out of memory"):
            one.run_part(X)
    for each in (one, other):
        each.close()


def test_a_device_that_is_lost_while_weights_are_copied_is_lost_for_all() -> None:
    gpus = FakeGpus()
    backend = TorchBackend(gpus)
    with closing(backend.load(layer("m", 1.0), FIRST)) as session:
        gpus.copy_stream.errors = [RuntimeError("the context is lost")]
        with pytest.raises(BackendError, match="CUDA:0 is lost for this process"):
            backend.load(layer("n", 1.0), SECOND)
        with pytest.raises(ExecutionError, match="CUDA:0 is lost for this process"):
            session.run_part(X)
    assert backend.device_use(GPU) is None


def test_an_engine_with_more_models_than_the_gpu_holds_loses_nothing() -> None:
    gpus = FakeGpus()
    backend = TorchBackend(gpus)
    models = {f"m{k}": layer(f"m{k}", float(k)) for k in range(1, 5)}
    took = SIZE + 4096  # with buffers
    entry = Measurement(seconds=(1e-4,), load_s=1e-3, resident_bytes=took)
    profile = Profile({ProfileKey(name, p.name): entry for name in models for p in (FIRST, SECOND)})
    with Engine(
        models,
        processors=[FIRST, SECOND],
        profile=profile,
        backends={"torch": backend},
        memory={GPU: 2 * took},
    ) as engine:
        for turn in range(12):
            number = 1 + turn % 4
            futures = [engine.submit(f"m{number}", X) for _ in range(3)]
            for future in futures:
                assert future.result(timeout=30)["y"][0, 0] == 64 * number
            use = engine.stats().memory
            assert use.devices[GPU].held_bytes <= 2 * SIZE
        assert use.loads >= 8
        assert use.evictions >= 8
        assert use.resident_bytes[GPU] <= 2 * took
        assert gpus.copy_stream.pinned == 4 * SIZE, "all of them wait there"
        assert not engine.warnings
    gc.collect()
    assert gpus.copy_stream.held == 0


class Picky(TorchBackend):
    """Loads nothing more on one of the streams, once it is told."""

    is_picky = False

    def load(self, model: Model, processor: Processor) -> Session:
        if self.is_picky and processor.name == SECOND.name:
            raise BackendError("one stream does not take it")
        return super().load(model, processor)


def test_what_can_be_loaded_on_one_stream_only_leaves_nothing_on_the_gpu() -> None:
    gpus = FakeGpus()
    backend = Picky(gpus)
    store = ModelStore({p.name: p for p in (FIRST, SECOND)}, {"torch": backend})
    profile = Profile.from_seconds({"m": {FIRST.name: 1e-4, SECOND.name: 1e-4}})
    store.put("m", layer("m", 1.0), profile, keep=True, later=True)
    place = ("m", Span(), (FIRST.name, SECOND.name))
    backend.is_picky = True
    with pytest.raises(BackendError, match="one stream does not take it"):
        store.load(*place)
    gc.collect()
    assert gpus.log.count("upload") == 1
    assert gpus.copy_stream.held == 0
    assert not store.items("m")
    backend.is_picky = False
    store.load(*place)
    assert len(store.items("m")) == 2
    store.close()
    gc.collect()
    assert (gpus.copy_stream.held, gpus.copy_stream.pinned) == (0, 0)


def test_fused_models_and_batches_of_layers_run_on_a_gpu_like_any_model() -> None:
    backend = TorchBackend(FakeGpus())
    models = [layer(f"m{k}", float(k)) for k in (1, 2, 3)]
    fused = fuse_models(models)
    feeds = [{"x": np.full((1, 64), k, np.float32)} for k in (1, 2, 3)]
    with closing(backend.load(fused.model, FIRST)) as session:
        made = fused.outputs_of(session.run(fused.inputs_of(feeds)))
    assert [each["y"][0, 0] for each in made] == [64, 256, 576]

    example = two_convs()
    partition = partition_at(example.model, [1], {"it": frozenset(range(3))})
    parts = [backend.load(extract(example.model, partition, Span(k, k)), FIRST) for k in (0, 1)]
    inputs = example.model.sample_inputs(batch=6)
    # The first layer in batches of three, the second in batches of two: values stay on the GPU.
    cut = [{name: value[at : at + 3] for name, value in inputs.items()} for at in (0, 3)]
    between = [run_part(parts[0], each) for each in cut]
    name = next(iter(between[0]))
    pieces = parted(joined([each[name] for each in between]), [2, 4])
    assert all(isinstance(piece, DeviceValue) for piece in pieces)
    done = [to_host(run_part(parts[1], {name: piece})) for piece in pieces]
    for out, wanted in example.reference(inputs).items():
        found = np.concatenate([each[out] for each in done])
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    for each in parts:
        each.close()


def test_fused_models_are_measured_by_what_they_take_on_the_device() -> None:
    gpus = FakeGpus()
    backend = TorchBackend(gpus)
    models = [layer(f"m{k}", float(k)) for k in (1, 2)]
    fused = fuse_models(models)
    members = [(member, model, [X]) for member, model in zip(fused.members, models, strict=True)]
    trial = fused_trial(fused.model, members, (FIRST, backend), (FIRST, backend), rounds=0)
    assert 2 * SIZE <= trial.resident_bytes <= 2 * SIZE + 8192
    assert trial.error <= 1e-6


class FakeRuntime:
    """What of the CUDA runtime pins memory."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.pinned: list[int] = []

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802
        if not self.code:
            self.pinned.append(address)
        return self.code

    def cudaHostUnregister(self, address: int) -> None:  # noqa: N802
        self.pinned.remove(address)


@pytest.mark.parametrize(
    ("code", "most", "refusal"),
    [
        (0, 2000, ""),
        (2, 2000, r"refuses to pin 1000 B \(CUDA error 2\); raise the limit .*ulimit"),
        (0, 900, "memory is short"),
    ],
)
def test_memory_is_pinned_where_it_is_or_left_as_it_is_with_one_warning(
    code: int,
    most: int,
    refusal: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    runtime = FakeRuntime(code)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    copies = CudaCopies(torch.device("cpu"), PinnedRoom(most))
    buffer = torch.zeros(1000, dtype=torch.uint8)
    with caplog.at_level(logging.WARNING):
        unpin = copies.pin(buffer)
        again = copies.pin(buffer.clone()) if refusal else None
    if refusal:
        assert (unpin, again) == (None, None)
        (record,) = caplog.records
        assert re.search(refusal, record.message)
        return
    assert unpin is not None
    assert runtime.pinned == [buffer.data_ptr()]
    unpin()
    assert not runtime.pinned
    assert not caplog.records


def test_jobs_of_layers_of_a_decomposed_network_run_on_streams_of_a_gpu() -> None:
    pytest.importorskip("tensorly")
    original = model_from_ir(registry.build("tiny_cnn"), name="net")
    samples = [original.sample_inputs(seed=seed) for seed in range(4)]
    small = compress(original, ranks="ratio:0.5", samples=samples, processors=[]).model
    assert small.to_bytes() != original.to_bytes()
    plain = onnxruntime.InferenceSession(small.to_bytes(), providers=["CPUExecutionProvider"])
    with Engine(
        {"net": small},
        processors=[FIRST, SECOND],
        backends={"torch": TorchBackend(FakeGpus())},
        partition=PartitionOptions(mode=Mode.UNIT, pieces=4),
        policy="fcfs",
        batch="off",
    ) as engine:
        assert "net is cut into 4 spans of 4 units" in engine.warnings[0]
        futures = [engine.submit("net", each) for each in samples * 2]
        for future, inputs in zip(futures, samples * 2, strict=True):
            found = future.result(timeout=30)
            for name, wanted in zip(found, plain.run(None, inputs), strict=True):
                np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-5)
        executions = sum(each.executions for each in engine.stats().processors.values())
        assert executions == 4 * len(futures), "each job is one"
