"""What nobody foresaw, in any thread of the engine: nothing is lost, one clear error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from coinfer.api import Engine
from coinfer.backends.null import Faults
from coinfer.core.policy import Policy, WaitUntil
from coinfer.errors import BackendError, ClosedError, InvariantError
from runtime.engines import FEED, null_engine

WAIT_S = 20.0
UNFORESEEN = "the engine failed: ZeroDivisionError: unforeseen"


def raising(*_: object) -> Any:
    raise ZeroDivisionError("unforeseen")


@dataclass(slots=True)
class Waits(Policy):
    """Waits a moment, always."""

    def decide(self, view: Any) -> Any:
        return [WaitUntil(view.now + 0.05)]


def assert_failed(engine: Engine, *futures: Any) -> None:
    for future in futures:
        error = future.exception(WAIT_S)
        assert isinstance(error, InvariantError | ClosedError)
        assert UNFORESEEN in str(error)
    with pytest.raises(ClosedError, match=UNFORESEEN):
        engine.submit("m", FEED)
    assert UNFORESEEN in str(engine.fault)
    engine.stop(timeout_s=WAIT_S)
    assert not engine._event_loop.timer._thread.is_alive()


@pytest.fixture
def faults() -> Iterator[Faults]:
    """A worker that hangs until the test ends: only the timer can look."""
    faults = Faults()
    faults.hang()
    yield faults
    faults.release()


def test_when_the_moment_comes_and_that_fails() -> None:
    engine = null_engine("p0", "p1", policy=Waits())
    engine._event_loop.timer._fire = raising
    assert_failed(engine, *[engine.submit("m", FEED) for _ in range(5)])


@pytest.mark.parametrize("drain", [True, False])
def test_when_somebody_rings_and_that_fails(faults: Faults, drain: bool) -> None:
    engine = null_engine(faults=faults)
    running = engine.submit("m", FEED)
    assert faults.wait_until_hanging()
    engine._event_loop.timer._look = raising
    waiting = engine.submit("m", FEED)
    for future in (running, waiting):
        assert UNFORESEEN in str(future.exception(WAIT_S))
    faults.release()
    engine.stop(drain=drain, timeout_s=WAIT_S)


def test_when_not_even_the_failure_can_be_handled(
    faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = null_engine(faults=faults)
    running = engine.submit("m", FEED)
    assert faults.wait_until_hanging()
    monkeypatch.setattr(engine._event_loop.timer, "_look", raising)
    monkeypatch.setattr(engine._event_loop, "post", raising)
    engine._event_loop.timer.ring()
    assert UNFORESEEN in str(running.exception(WAIT_S))
    faults.release()
    monkeypatch.undo()
    engine.stop(timeout_s=WAIT_S)


def test_when_what_the_owner_is_asked_to_do_fails() -> None:
    engine = null_engine("p0", "p1", policy=Waits())
    waiting = [engine.submit("m", FEED) for _ in range(3)]
    pool = engine._event_loop.worker_pool
    pool.replace = raising  # type: ignore[method-assign]
    engine._event_loop.returned(pool.workers["p0"])
    assert_failed(engine, *waiting)


@pytest.mark.parametrize("moment", ["handed_over", "ended", "answered"])
def test_a_timekeeper_that_fails_is_detached(moment: str) -> None:
    class Keeper:
        def handed_over(self, *_: object) -> None: ...
        def ended(self, *_: object) -> None: ...
        def answered(self, *_: object) -> None: ...

    keeper = Keeper()
    setattr(keeper, moment, raising)
    with null_engine() as engine:
        engine.attach(None, keeper)
        for _ in range(3):
            assert engine.submit("m", FEED).exception(WAIT_S) is None
        [warning] = engine.warnings
        assert warning == (
            "timekeeper Keeper failed and was detached: ZeroDivisionError('unforeseen')"
        )


def test_a_system_without_a_thread_to_keep_time_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(BackendError, match="no thread to keep time: can't start new thread"):
        null_engine()
