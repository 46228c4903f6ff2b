"""Artefacts of both libraries: the same answers, and no harm if something fails."""

from __future__ import annotations

import dataclasses
import logging
import mmap
import os
import pickle
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import coinfer.artefacts.store
from coinfer import zoo
from coinfer.artefacts import Made, MakeError, child, default_store
from coinfer.backends import artefact_making, artefact_parts, get_backend
from coinfer.backends.artefact_making import prepare, prepare_all, read_ahead
from coinfer.backends.base import Session, files_of
from coinfer.backends.mapped_file import forget_pages, forget_unmapped, read_pages
from coinfer.backends.onnxruntime.part import OnnxRuntimePart
from coinfer.graph.extract import extract
from coinfer.graph.partition import partition_at
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span
from coinfer.model import Model, model_from_ir
from coinfer.testing.models import Example, examples, model_from_text, tiny_conv, two_convs

BACKENDS = ("onnxruntime", "openvino")
MIB = 2**20


@pytest.fixture(autouse=True)
def all_models_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COINFER_ARTEFACTS")
    monkeypatch.setattr(artefact_parts, "LEAST_WEIGHT_BYTES", 0)
    monkeypatch.setattr(coinfer.artefacts.store, "_warned", set())


def find(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


@pytest.fixture(params=BACKENDS)
def cpu(request: pytest.FixtureRequest) -> Processor:
    if not find(request.param):
        pytest.skip(f"{request.param} is not installed")
    return processor(request.param)


def processor(backend: str = "onnxruntime", **fields: Any) -> Processor:
    values = {"name": "p", "units": frozenset({"core0"}), **fields}
    return Processor(backend=backend, **values)


def load(model: Model, cpu: Processor) -> Session:
    return get_backend(cpu.backend).load(model, cpu)


def made(model: Model, cpu: Processor) -> None:
    prepare(get_backend(cpu.backend), model, cpu)


def lease_of(session: Any) -> Any:
    return session.lease if hasattr(session, "lease") else session._lease


def same(one: Mapping[str, np.ndarray[Any, Any]], two: Mapping[str, np.ndarray[Any, Any]]) -> bool:
    return all(one[n].tobytes() == two[n].tobytes() for n in one) and one.keys() == two.keys()


@pytest.mark.parametrize("example", examples(), ids=lambda e: e.model.name)
def test_answers_are_the_same_to_the_bit(example: Example, cpu: Processor) -> None:
    try:
        direct = load(example.model, cpu)
    except Exception as error:  # noqa: BLE001 - what a backend cannot load has no artefact
        pytest.skip(f"not loaded: {error}")
    made(example.model, cpu)
    [entry] = default_store().entries()
    assert entry.artefact is not None
    assert entry.artefact.refused == ""
    for threads in (1, 2):
        alike = load(example.model, dataclasses.replace(cpu, threads=threads))
        assert lease_of(alike) is not None
        for batch in (1, 3):
            inputs = example.model.sample_inputs(batch=batch)
            assert same(direct.run(inputs), alike.run(inputs))
        assert alike.placement().threads == threads
        assert alike.placement().operators == direct.placement().operators
        alike.close()
    direct.close()


def halves() -> tuple[Model, Model]:
    model = two_convs().model
    partition = partition_at(model, [1], {"it": frozenset(range(3))})
    first, second = (extract(model, partition, Span(at, at)) for at in (0, 1))
    return first, second


def test_parts_hand_values_on_in_blocks_as_those_compiled_directly_do() -> None:
    first, second = halves()
    cpu = processor()
    direct = [load(each, cpu) for each in (first, second)]
    for each in (first, second):
        made(each, cpu)
    opened = [load(each, cpu) for each in (first, second)]
    assert all(lease_of(session) is not None for session in opened)
    for one, other in zip(direct, opened, strict=True):
        assert type(one) is type(other)
        if isinstance(one, OnnxRuntimePart) and isinstance(other, OnnxRuntimePart):
            assert (one.takes, one.gives) == (other.takes, other.gives)
    inputs = first.sample_inputs()
    between = [session.run(inputs) for session in (direct[0], opened[0])]
    assert same(*between)
    ends = [
        s.run({n: between[0][n] for n in (i.name for i in second.inputs)})
        for s in (direct[1], opened[1])
    ]
    assert same(*ends)
    for session in (*direct, *opened):
        session.close()


def test_cores_share_an_artefact_and_other_precisions_options_and_versions_do_not(
    cpu: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend: Any = get_backend(cpu.backend)
    model = tiny_conv().model
    parts = backend.artefact_parts(model, cpu)
    for alike in ({"units": frozenset({"core1"}), "cores": (1,)}, {"threads": 2}, {"name": "q"}):
        assert backend.artefact_parts(model, dataclasses.replace(cpu, **alike)) == parts
    assert backend.artefact_parts(model.renamed("other"), cpu) == parts
    for other in ({"precision": "bf16"}, {"options": {"a.b": "1"}}):
        assert backend.artefact_parts(model, dataclasses.replace(cpu, **other)) != parts
    assert backend.artefact_parts(two_convs().model, cpu) != parts
    monkeypatch.setattr(type(backend), "versions", lambda self: {cpu.backend: "0"})
    assert backend.artefact_parts(model, cpu) != parts
    monkeypatch.setattr("coinfer.backends.artefact_parts.cpu_type", lambda: "another")
    assert backend.artefact_parts(model, cpu)["cpu"] == "another"


def test_only_the_cpu_has_artefacts(cpu: Processor) -> None:
    backend: Any = get_backend(cpu.backend)
    other = dataclasses.replace(cpu, device="GPU:0")
    assert backend.artefact_parts(tiny_conv().model, other) is None


def test_a_damaged_artefact_is_made_again_and_answers_stay_right(
    cpu: Processor, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_conv().model
    inputs = model.sample_inputs()
    expected = load(model, cpu).run(inputs)
    made(model, cpu)
    [entry] = default_store().entries()
    assert entry.artefact is not None
    name = max(entry.artefact.files, key=lambda n: entry.artefact.files[n].size)  # type: ignore[union-attr]
    file = default_store().folder / entry.digest / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    session = load(model, cpu)
    assert lease_of(session) is None
    assert same(session.run(inputs), expected)
    session.close()
    made(model, cpu)
    session = load(model, cpu)
    assert lease_of(session) is not None
    assert same(session.run(inputs), expected)
    session.close()
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1


def test_what_the_library_cannot_open_is_removed_and_the_model_compiled(
    cpu: Processor, caplog: pytest.LogCaptureFixture
) -> None:
    from artefacts.stored import writing

    backend: Any = get_backend(cpu.backend)
    model = tiny_conv().model
    parts = backend.artefact_parts(model, cpu)
    facts = {"operators": {}, "shares": False, "note": ""}

    def nonsense(folder: Path) -> Any:
        for name in ("model.onnx", "model.blob"):
            (folder / name).write_bytes(b"nonsense" * 100)
        return writing(b"x")(folder)._replace(facts=facts)

    default_store().ensure(parts, nonsense, model="m", expected_bytes=1, patience_s=1.0)
    session = load(model, cpu)
    assert lease_of(session) is None
    session.run(model.sample_inputs())
    session.close()
    assert default_store().entries() == []
    assert "is damaged" in caplog.text


def test_an_artefact_that_computes_something_else_is_refused(
    cpu: Processor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that writes down another graph than it runs: here one with other weights."""
    from coinfer.backends import artefact_check

    outputs = iter(np.arange(100, dtype=np.float32))

    class Other:
        def run(self, inputs: object) -> dict[str, Any]:
            return {"y": np.full(3, next(outputs))}

    other: Any = Other()
    assert "'y' differs" in artefact_check.differs(tiny_conv().model, other, other)


def test_a_session_keeps_its_artefact_from_eviction_until_it_is_closed(cpu: Processor) -> None:
    model = tiny_conv().model
    made(model, cpu)
    session = load(model, cpu)
    [entry] = default_store().entries()
    assert entry.in_use
    session.close()
    [entry] = default_store().entries()
    assert not entry.in_use


def test_files_that_are_removed_while_they_are_mapped_do_no_harm(cpu: Processor) -> None:
    model = tiny_conv().model
    made(model, cpu)
    session = load(model, cpu)
    inputs = model.sample_inputs()
    expected = session.run(inputs)
    [entry] = default_store().entries()
    default_store().remove_damaged(entry.digest)
    assert default_store().entries() == []
    for _ in range(6):
        assert same(session.run(inputs), expected)
    session.close()


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ("import os; os._exit(3)", "status 3"),
        ("raise SystemError('no library')", "no library"),
        ("print('hello')", "status 0"),
        ("import sys; sys.stdin.buffer.read(); import os; os.kill(os.getpid(), 9)", "status -9"),
    ],
)
def test_a_child_that_dies_costs_a_warning_and_nothing_else(
    start: str, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(child, "_START", start)
    model = tiny_conv().model
    for _ in range(2):
        made(model, processor())
    [warning] = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert reason in warning
    assert list(default_store().folder.iterdir()) == []
    session = load(model, processor())
    session.run(model.sample_inputs())
    session.close()


def test_a_child_that_hangs_is_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(child, "_START", "import time; time.sleep(100)")
    monkeypatch.setattr(artefact_making, "patience_s", lambda: 0.5)
    before = set(psutil.Process().children())
    made(tiny_conv().model, processor())
    assert set(psutil.Process().children()) <= before
    assert "not made within 0.5 s" in caplog.text


def test_without_a_python_to_start_models_are_compiled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    made(tiny_conv().model, processor())
    assert "No such file" in caplog.text


def test_ctrl_c_ends_the_child_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_START", "import time; time.sleep(100)")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    before = set(psutil.Process().children())
    with pytest.raises(KeyboardInterrupt):
        made(tiny_conv().model, processor())
    assert set(psutil.Process().children()) <= before
    assert list(default_store().folder.iterdir()) == []


def test_no_artefacts_where_the_environment_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COINFER_ARTEFACTS", "0")
    made(tiny_conv().model, processor())
    assert not (tmp_path / "cache/artefacts").exists()


def test_models_of_the_zoo_whose_weights_are_computed_when_they_are_read_can_be_sent() -> None:
    for model in (tiny_conv().model, *halves(), model_from_ir(zoo.build("lenet"), name="lenet")):
        sent = dataclasses.replace(model, content=model.content.detached())
        assert pickle.loads(pickle.dumps(sent)).fingerprint == model.fingerprint
    made(model, processor())
    session = load(model, processor())
    assert lease_of(session) is not None
    session.close()


OPEN = "m (float[1,1,h,w] x) => (float[1,1,h,w] y) { a = Relu(x) b = Neg(a) y = Abs(b) }"


@pytest.mark.alone
def test_memory_of_an_unusually_large_request_goes_back() -> None:
    model = model_from_text(OPEN, name="m")
    session = load(model, processor())
    small, large = (np.ones((1, 1, side, side), np.float32) for side in (64, 6000))
    for _ in range(3):
        session.run({"x": small})
    before = psutil.Process().memory_info().rss
    for inputs in (large, small):
        session.run({"x": inputs})
    assert psutil.Process().memory_info().rss < before + large.nbytes / 2
    for _ in range(20):  # what is usual by now stays
        session.run({"x": large})
    assert psutil.Process().memory_info().rss > before + large.nbytes / 2
    session.close()


@pytest.mark.alone
def test_a_hundred_loads_runs_and_closes_take_no_memory(cpu: Processor) -> None:
    model = tiny_conv().model
    made(model, cpu)
    inputs = model.sample_inputs()

    def cycles(count: int) -> int:
        for _ in range(count):
            session = load(model, cpu)
            session.run(inputs)
            session.close()
        return int(psutil.Process().memory_info().rss)

    cycles(50)
    assert cycles(100) - cycles(100) < MIB
    files = psutil.Process().num_fds() if os.name == "posix" else 0
    cycles(10)
    assert (psutil.Process().num_fds() if os.name == "posix" else 0) == files


def test_what_is_to_be_made_is_not_copied_for_the_child(tmp_path: Path) -> None:
    model = model_from_ir(zoo.build("squeezenet1_1"), name="squeezenet1_1")
    model = dataclasses.replace(model, content=model.content.detached())
    processor = Processor(name="cpu", backend="null", units=frozenset({"core"}))
    tracemalloc.start()
    try:
        with pytest.raises(MakeError):  # that backend makes none
            artefact_making._made_in_child(
                "null", model, processor, tmp_path, artefact_making._Children()
            )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < model.weight_bytes / 2


def orders(count: int) -> list[tuple[Any, Model, Processor]]:
    """Return models to prepare, the first one twice."""
    texts = [f"agraph (float[N,4] x) => (float[N,4] y) <float s = {{{n}}}>" for n in range(count)]
    models = [model_from_text(text + " { y = Mul(x, s) }", name="m") for text in texts]
    return [(get_backend("onnxruntime"), model, processor()) for model in (*models, models[0])]


@pytest.mark.parametrize(("memory", "most"), [(None, 2), (1, 1)])
def test_artefacts_are_made_side_by_side_where_memory_has_room(
    memory: int | None, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Path] = []
    now, seen = threading.Semaphore(most), threading.Barrier(most)

    def made_here(
        _name: str, _model: Model, _processor: Processor, folder: Path, _children: Any
    ) -> Made:
        assert now.acquire(blocking=False)  # never more than that at once
        seen.wait(10)  # and as many as that
        begun.append(folder)
        now.release()
        return Made()

    monkeypatch.setattr(artefact_making, "_made_in_child", made_here)
    prepare_all(orders(4), most=2, memory=memory)
    assert len(begun) == len(set(begun)) == 4
    assert len(default_store().entries()) == 4
    prepare_all(orders(4), most=2, memory=memory)  # nothing is left to do
    assert len(begun) == 4


def test_each_child_counts_with_what_it_takes_whatever_it_prepares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: set[str] = set()

    def made_here(*_: Any) -> Made:
        threads.add(threading.current_thread().name)
        return Made()

    monkeypatch.setattr(artefact_making, "_made_in_child", made_here)
    prepare_all(orders(4), most=64, memory=512 * MIB)  # 64 interpreters would not fit
    assert threads == {threading.current_thread().name}


def test_what_the_cache_has_no_room_for_is_left_to_those_that_load_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COINFER_ARTEFACTS", "20B")
    begun: list[Any] = []
    monkeypatch.setattr(artefact_making, "_made_in_child", lambda *of: begun.append(of) or Made())
    prepare_all(orders(4), most=2, memory=None)
    assert begun == []  # of 4 with 9 bytes each, the first would be gone with the last


@pytest.mark.skipif(os.name != "posix", reason="there a wait cannot be interrupted")
def test_ctrl_c_ends_the_children_at_once_and_nothing_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ends: list[int] = []
    both = threading.Barrier(3)

    def waits(*_: Any, started: Any = lambda _: None, **_named: Any) -> Any:
        code = "import time; time.sleep(30)"
        with subprocess.Popen([sys.executable, "-S", "-c", code]) as child:
            started(child)
            both.wait(20)
            ends.append(child.wait())
        raise MakeError("it was ended")

    def interrupt() -> None:
        both.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(artefact_making, "answer_of", waits)
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        prepare_all(orders(4), most=2, memory=None)
    assert ends == [-signal.SIGKILL] * 2
    assert caplog.records == []
    assert default_store().entries() == []


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="not on this system")
def test_a_session_names_the_files_that_can_be_forgotten_once_it_is_closed(
    cpu: Processor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = tiny_conv().model
    assert files_of(load(model, cpu)) == ()
    made(model, cpu)
    session = load(model, cpu)
    files = set(files_of(session))
    [entry] = default_store().entries()
    folder = default_store().folder / entry.digest
    assert files == {path for path in folder.iterdir() if path.name != "manifest.json"}
    session.close()
    told: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _file, *how: told.append(how[2]))
    forget_pages([*files, tmp_path / "gone"])
    assert told == [os.POSIX_FADV_DONTNEED] * len(files)


@pytest.mark.skipif(sys.platform != "linux", reason="not on this system")
def test_an_artefact_is_read_whole_before_it_is_opened(
    cpu: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: dict[Path, int] = {}
    sendfile = os.sendfile

    def send(out: int, file: int, at: int, count: int) -> int:
        path = Path(f"/proc/self/fd/{file}").readlink()
        sent = sendfile(out, file, at, min(count, 100))
        assert at == read.get(path, 0), "one piece follows the other"
        read[path] = at + sent
        return sent

    monkeypatch.setattr(os, "sendfile", send)
    model, backend = tiny_conv().model, get_backend(cpu.backend)
    read_ahead(backend, model, cpu)
    assert not read, "there is no artefact yet"
    made(model, cpu)
    read.clear()
    read_ahead(backend, model, cpu)
    session = load(model, cpu)
    assert read == {path.resolve(): path.stat().st_size for path in files_of(session)}
    session.close()
    [entry] = default_store().entries()
    assert not entry.in_use, "nobody holds it who has read it"


@pytest.mark.skipif(sys.platform != "linux", reason="not on this system")
def test_of_files_that_cannot_be_read_ahead_the_others_are(tmp_path: Path) -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    there = tmp_path / "there"
    there.write_bytes(bytes(3 * MIB))
    before = opened()
    read_pages([tmp_path / "gone", tmp_path, there])
    assert opened() == before


@pytest.mark.skipif(sys.platform != "linux", reason="not on this system")
def test_of_a_file_only_what_is_not_mapped_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = mmap.PAGESIZE
    path, other = tmp_path / "a file", tmp_path / "none of it is mapped"
    path.write_bytes(bytes(9 * page))
    other.write_bytes(bytes(100))
    told: list[tuple[str, int, int]] = []

    def advise(file: int, at: int, size: int, how: int) -> None:
        assert how == os.POSIX_FADV_DONTNEED
        told.append((Path(f"/proc/self/fd/{file}").readlink().name, at // page, size))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    with path.open("rb") as file:
        maps = [
            mmap.mmap(file.fileno(), n * page, access=mmap.ACCESS_READ, offset=at * page)
            for at, n in ((5, 2), (1, 3), (2, 1))
        ]
    forget_unmapped([path, other, tmp_path / "gone"])
    assert told == [
        (path.name, 0, page),
        (path.name, 4, page),
        (path.name, 7, 2 * page),
        (other.name, 0, 100),
    ]
    for each in maps:
        each.close()
