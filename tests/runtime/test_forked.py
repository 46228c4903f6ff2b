"""The child of a fork: the engine of its parent is refused at once, a new one works."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

from backends.hanging import Hanging
from coinfer.api import Engine
from coinfer.backends import loading, registry
from coinfer.backends.null import Faults
from coinfer.backends.pools import POOLS
from coinfer.errors import ClosedError
from coinfer.machine.profile import Profile
from coinfer.runtime import future as future_module
from runtime.engines import FEED, MODEL, cpus, null_engine

WAIT_S = 20.0

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
]


@pytest.fixture(autouse=True)
def threads_are_known() -> Iterator[None]:
    """From Python 3.12 on a fork beside threads is warned of; that is what is tried here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def in_child(act: Callable[[], object]) -> str:
    """What a function returns, or raises, in the child of a fork."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(int(WAIT_S))  # one that hangs says nothing
        try:
            said = repr(act())
        except BaseException as error:  # noqa: BLE001 - to be told to the parent
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_the_engine_of_the_parent_is_refused_at_once() -> None:
    with null_engine("p0", "p1") as engine:
        engine.infer("m", FEED)
        for ask in (
            lambda: engine.submit("m", FEED),
            lambda: engine.infer("m", FEED),
            lambda: engine.warm_up("m", FEED),
            lambda: engine.load("n", "zoo:lenet"),
            lambda: engine.unload("m"),
            lambda: engine.drain(),
        ):
            said = in_child(ask)
            assert said.startswith("ClosedError: this process is a fork")
            assert "make an engine in each process" in said
        assert in_child(lambda: (engine.n_unanswered, engine.stats().models["m"].completed))
        assert in_child(engine.stop) == "None"
        assert engine.submit("m", FEED).exception(WAIT_S) is None


def test_the_childs_copy_of_a_future_is_answered_and_calls_nobody() -> None:
    faults = Faults()
    faults.hang()
    with null_engine(faults=faults) as engine:
        running = engine.submit("m", FEED)
        assert faults.wait_until_hanging()
        waiting = engine.submit("m", FEED)
        called: list[object] = []
        for future in (running, waiting):
            future.add_done_callback(called.append)
            assert in_child(lambda future=future: future.result(WAIT_S)).startswith("ClosedError")
        assert in_child(lambda: (waiting.cancel(), called)) == "(False, [])"
        faults.release()
        assert running.exception(WAIT_S) is None
        assert waiting.exception(WAIT_S) is None
        assert called == [running, waiting]


def test_a_new_engine_works_in_the_child_and_in_its_own_child() -> None:
    def ask() -> list[str]:
        with null_engine("p0", "p1") as own:
            return sorted(own.infer("m", FEED))

    def ask_twice() -> tuple[list[str], str]:
        return ask(), in_child(ask)

    with null_engine() as engine:
        engine.infer("m", FEED)
        assert in_child(ask_twice) == repr((["y"], "['y']"))


def test_leaving_the_block_of_the_parent_in_the_child_is_quiet() -> None:
    def leave() -> None:
        with engine:
            pass

    with null_engine() as engine:
        assert in_child(leave) == "None"
        with pytest.raises(ClosedError):
            raise ClosedError(in_child(lambda: engine.submit("m", FEED)))


def test_the_engine_of_a_parent_that_is_loading_is_refused_at_once() -> None:
    backend = Hanging("nowhere", processor="p0")
    profile = Profile.from_seconds({"m": {"p0": 1e-4}, "n": {"p0": 1e-4}})
    with Engine(
        {"m": MODEL},
        processors=cpus("p0"),
        profile=profile,
        backends={"null": backend},
        pin=False,
    ) as engine:
        backend.at = "load"
        load = threading.Thread(target=engine.load, args=("n", MODEL, profile))
        load.start()
        assert backend.hangs.wait(WAIT_S)
        for ask in (
            lambda: engine.submit("m", FEED),
            lambda: engine.warm_up("m", FEED),
            lambda: engine.load("o", MODEL),
            lambda: engine.unload("m"),
        ):
            assert in_child(ask).startswith("ClosedError: this process is a fork")
        assert in_child(engine.stop) == "None"
        backend.go_on.set()
        load.join(WAIT_S)


def test_what_others_hold_at_the_fork_is_free_in_the_child() -> None:
    """Locks of the process and of a model: their threads are not there any more."""
    held = [MODEL.content._lock, future_module._NOTING, POOLS._lock]
    held += [loading._CREATION_LOCK, registry._lock]

    def ask() -> tuple[list[str], bool]:
        with null_engine("p0", "p1") as own:
            POOLS.reserve(1, what="it")
            POOLS.release(1)
            registry.get_backend("null")
            own.load("n", MODEL, Profile.from_seconds({"n": {"p0": 1e-4}}))
            own.submit("m", FEED).cancel()
            return sorted(own.infer("n", FEED)), len(MODEL.to_bytes()) > 0

    for lock in held:
        lock.acquire()
    try:
        said = in_child(ask)
    finally:
        for lock in held:
            lock.release()
    assert said == "(['y'], True)"
