"""The thread that loads and evicts: whatever backends raise in it, callers are answered."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from backends.hanging import Hanging
from coinfer import Engine
from coinfer.backends.null import NullBackend
from coinfer.backends.patience import VARIABLE
from coinfer.errors import BackendError, ExecutionError
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from runtime.engines import FEED, MODEL, cpus
from runtime.interrupting import RUNTIME, each_point
from runtime.test_dropped import drop, threads_of_engines, wait_until_they_ended

WAIT_S = 20.0
SIZE = 100
NAMES = ("a", "b")
ENDINGS = [ValueError, MemoryError, SystemExit, KeyboardInterrupt, GeneratorExit]


def times(*names: str, processors: tuple[str, ...] = ("p0",)) -> Profile:
    entry = Measurement(seconds=(1e-4,), load_s=1e-4, resident_bytes=SIZE)
    return Profile({ProfileKey(m, p): entry for m in names for p in processors})


def engine(
    backend: NullBackend | None = None, *, size: int = SIZE, processors: tuple[str, ...] = ("p0",)
) -> Engine:
    """With two models, and room for one unless told otherwise."""
    return Engine(
        dict.fromkeys(NAMES, MODEL),
        processors=cpus(*processors),
        profile=times(*NAMES, processors=processors),
        backends={"null": backend or NullBackend()},
        memory=size,
        pin=False,
    )


def served(engine: Engine, *names: str) -> list[BaseException | None]:
    return [engine.submit(name, FEED).exception(WAIT_S) for name in names]


class Bad(NullBackend):
    """Once it is armed, loading or closing raises."""

    def __init__(self, at: str, error: type[BaseException]) -> None:
        super().__init__()
        self.at, self.error, self.armed = at, error, False

    def fail(self, at: str) -> None:
        if self.armed and self.at == at:
            raise self.error("oops")

    def load(self, model, processor):
        self.fail("load")
        session = super().load(model, processor)
        session.close = lambda: self.fail("close")
        return session


@pytest.mark.parametrize("error", ENDINGS)
def test_what_loading_raises_fails_who_needs_it_and_nobody_else(
    error: type[BaseException],
) -> None:
    backend = Bad("load", error)
    with engine(backend) as running:
        assert served(running, *NAMES) == [None, None]
        backend.armed = True
        [failure] = served(running, "a")
        assert isinstance(failure, ExecutionError)
        assert f"model 'a' on processor p0: it cannot be loaded: {error.__name__}" in str(
            failure
        ).replace("BackendError: model 'a' on processor 'p0': it cannot be loaded: ", "")
        backend.armed = False  # it is loaded again after a while, whoever asks
        until_s = time.monotonic() + WAIT_S
        while served(running, *NAMES) != [None, None]:
            assert time.monotonic() < until_s
        assert running.drain(WAIT_S)


@pytest.mark.parametrize("error", ENDINGS)
def test_what_closing_raises_harms_nobody(error: type[BaseException]) -> None:
    backend = Bad("close", error)
    with engine(backend) as running:
        backend.armed = True
        assert served(running, *NAMES * 2) == [None] * 4
        backend.armed = False
        assert running.fault is None


def test_what_nobody_foresaw_ends_in_one_error_for_all() -> None:
    running = engine()

    def raising(*_: object) -> None:
        raise ZeroDivisionError("unforeseen")

    running._event_loop.loader._done = raising
    futures = [running.submit(name, FEED) for name in NAMES * 3]
    errors = [future.exception(WAIT_S) for future in futures]
    assert any("the engine failed: ZeroDivisionError: unforeseen" in str(e) for e in errors)
    assert "unforeseen" in str(running.fault)
    running.stop(timeout_s=WAIT_S)
    assert wait_until_they_ended()


def test_a_system_without_a_thread_for_it_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name == "coinfer-loader":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    with engine() as running:
        [failure] = served(running, "a")
        assert isinstance(failure, ExecutionError)
        assert "can't start new thread" in str(failure)
        monkeypatch.undo()
        running.stop(timeout_s=WAIT_S)
    assert wait_until_they_ended()


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    monkeypatch.setenv(VARIABLE, "0.3")
    backend = Hanging("nowhere", processor="p0")
    yield backend
    backend.go_on.set()
    for thread in threading.enumerate():
        if thread.name == "coinfer-library":
            thread.join(WAIT_S)


def test_a_library_that_hangs_in_it_is_named_and_others_load_elsewhere(hanging: Hanging) -> None:
    with engine(hanging, processors=("p0", "p1")) as running:
        hanging.at = "load"
        assert served(running, *NAMES * 2) == [None] * 4
        assert hanging.hangs.is_set()
        [warning] = [each for each in running.warnings if "has not returned" in each]
        assert "on processor 'p0' has not returned for 0.3 s" in warning


def test_its_thread_ends_with_an_engine_that_is_dropped() -> None:
    engines = [engine()]
    assert served(engines[0], *NAMES) == [None, None]
    assert "coinfer-loader" in threads_of_engines()
    with pytest.warns(ResourceWarning, match=r"without stop\(\)"):
        drop(engines)
    assert wait_until_they_ended()


def test_submitting_and_cancelling_are_done_or_not() -> None:
    with engine() as running:
        for at in each_point(lambda: running.submit(NAMES[0], FEED).cancel(), where=RUNTIME):
            assert served(running, NAMES[at % 2]) == [None]
        assert running.drain(WAIT_S)
        assert running.n_unanswered == 0


def test_a_load_into_a_budget_does_all_or_nothing() -> None:
    with engine(size=2 * SIZE) as running:
        for at in each_point(lambda: running.load("c", MODEL, times("c")), where=RUNTIME):
            if "c" in running.models:
                assert served(running, "c") == [None]
                running.unload("c")
            if not at % 8:
                assert served(running, *NAMES) == [None, None]
        assert set(running.plan.models) == {*NAMES, "c"}
        assert served(running, *NAMES, "c") == [None] * 3
        assert running.drain(WAIT_S)
        assert running.fault is None


def test_an_unload_is_done_or_can_be_done_again() -> None:
    with engine(size=2 * SIZE) as running:
        running.load("c", MODEL, times("c"))
        for _ in each_point(lambda: running.unload("c"), where=RUNTIME):
            if "c" not in running.models:
                running.load("c", MODEL, times("c"))  # it finishes what was left
            assert served(running, "c") == [None]
        assert served(running, *NAMES) == [None, None]
        assert running.fault is None


def test_a_stop_that_is_left_can_be_called_again() -> None:
    engines: list[Engine] = []
    futures: list[Future[object]] = []

    def make() -> None:
        engines.append(engine())
        futures.extend(engines[-1].submit(name, FEED) for name in NAMES * 2)

    make()
    for _ in each_point(lambda: engines[-1].stop(drain=False), where=RUNTIME, step=7):
        engines[-1].stop(drain=False)
        assert all(future.done() for future in futures)
        make()
    engines[-1].stop()
    assert wait_until_they_ended()


@pytest.mark.alone
def test_the_interpreter_waits_for_what_is_being_loaded() -> None:
    script = """
        import threading, time
        from coinfer.backends.null import NullBackend
        from runtime.test_loader import engine, FEED

        loading = threading.Event()

        class Slow(NullBackend):
            def load(self, model, processor):
                if begun:
                    loading.set()
                    time.sleep(0.5)
                    print("loaded", flush=True)
                return super().load(model, processor)

        begun = []
        running = engine(Slow())
        begun.append(1)
        futures = [running.submit(name, FEED) for name in ("b", "a", "b")]
        assert loading.wait(20)
    """
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "loaded\n" in ended.stdout


def test_a_model_that_cannot_be_loaded_at_the_start_is_said_by_name() -> None:
    backend = Bad("load", ValueError)
    backend.armed = True
    with pytest.raises(BackendError, match="'a' on processor 'p0'"):
        engine(backend, size=2 * SIZE)
