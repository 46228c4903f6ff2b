"""What a callback raises is its own affair: reported once, and everybody else goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from coinfer.backends.null import Faults
from coinfer.core.request import OnLate
from coinfer.errors import ClosedError, DroppedError
from runtime.engines import FEED, null_engine

WAIT_S = 20.0
KINDS = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit]


def raising(kind: type[BaseException]) -> Callable[[object], None]:
    def callback(_future: object) -> None:
        raise kind("oops")

    return callback


@pytest.mark.parametrize("kind", KINDS)
def test_workers_and_other_callbacks_go_on(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    faults = Faults()
    faults.hang()
    called = threading.Event()
    with null_engine(faults=faults) as engine:
        first = engine.submit("m", FEED)
        assert faults.wait_until_hanging()
        first.add_done_callback(raising(kind))
        first.add_done_callback(lambda _: called.set())
        faults.release()
        assert first.exception(WAIT_S) is None
        assert called.wait(WAIT_S)
        for _ in range(5):
            assert engine.submit("m", FEED).exception(WAIT_S) is None
        assert engine.drain(WAIT_S)
        assert engine.outages == []
    assert caplog.text.count("a callback of request 0 of model 'm' raised") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_timer_goes_on(kind: type[BaseException]) -> None:
    faults = Faults()
    faults.hang()
    with null_engine(faults=faults) as engine:
        engine.submit("m", FEED)
        assert faults.wait_until_hanging()
        for _ in range(3):
            late = engine.submit("m", FEED, deadline_s=0.01, on_late=OnLate.DROP)
            late.add_done_callback(raising(kind))
            assert isinstance(late.exception(WAIT_S), DroppedError)
        faults.release()


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_answers_everybody(kind: type[BaseException]) -> None:
    faults = Faults()
    faults.hang()
    with null_engine(faults=faults) as engine:
        running = engine.submit("m", FEED)
        assert faults.wait_until_hanging()
        waiting = [engine.submit("m", FEED) for _ in range(3)]
        for future in [running, *waiting]:
            future.add_done_callback(raising(kind))
        engine.stop(drain=False, timeout_s=0.05)
        assert all(isinstance(future.exception(0), ClosedError) for future in [running, *waiting])
        faults.release()


def test_who_cancels_gets_what_callbacks_raise_beyond_errors() -> None:
    faults = Faults()
    faults.hang()
    with null_engine(faults=faults) as engine:
        engine.submit("m", FEED)
        assert faults.wait_until_hanging()
        waiting = engine.submit("m", FEED)
        called = threading.Event()
        waiting.add_done_callback(raising(KeyboardInterrupt))
        waiting.add_done_callback(lambda _: called.set())
        with pytest.raises(KeyboardInterrupt):
            waiting.cancel()
        assert waiting.cancelled()
        assert called.is_set()
        faults.release()
        assert engine.drain(WAIT_S)


def test_an_observer_that_ends_its_thread_is_detached() -> None:
    class Observer:
        def observe(self, event, commands, now):
            raise SystemExit(3)

    with null_engine(observer=Observer()) as engine:
        assert engine.submit("m", FEED).exception(WAIT_S) is None
        assert any("was detached" in warning for warning in engine.warnings)
