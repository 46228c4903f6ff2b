"""An engine says once, per model, that requests come at other rates than it was planned for."""

from __future__ import annotations

import threading

import pytest

from coinfer.metrics.rate_drift import IN_A_ROW, WINDOW_S
from coinfer.runtime import rate_watch as module
from coinfer.runtime.engine_warnings import EngineWarnings
from coinfer.runtime.rate_watch import RateWatch
from coinfer.runtime.timer import Timer


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def now(self) -> float:
        return self.at_s


def test_it_is_said_once_with_the_models_the_rates_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, warnings = Clock(), EngineWarnings()
    monkeypatch.setattr(module, "clock", clock)
    counts = {"front": 0, "rear": 0}
    watch = RateWatch({"front": 10.0, "rear": 10.0}, lambda: counts, warnings)
    for _ in range(IN_A_ROW + 4):
        assert watch.due_in_s() == 0.0
        watch.look()
        assert watch.due_in_s() == WINDOW_S
        clock.at_s += WINDOW_S
        counts = {"front": counts["front"] + 500, "rear": counts["rear"] + 100}
    (text,) = warnings
    assert text == (
        "front: 50 requests/s come, and the plan's processors were chosen for 10; plan anew with "
        "the rates of now (`coinfer plan`)"
    )


def test_the_timer_looks_at_what_is_due_without_being_rung() -> None:
    looked = threading.Event()

    class Due:
        def due_in_s(self) -> float:
            return 60.0 if looked.is_set() else 0.0

        def look(self) -> None:
            looked.set()

    timer = Timer(lambda: None)
    timer.watches.append(Due())
    timer.start()
    assert looked.wait(10.0)
    assert timer.stop(10.0)
