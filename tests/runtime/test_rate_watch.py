"""An engine says once, per model, that requests come at other rates than it was planned for."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest

from coinfer.metrics.rate_drift import IN_A_ROW, WINDOW_S
from coinfer.planner.prepare import prepare
from coinfer.runtime import rate_watch as module
from coinfer.runtime.engine import Engine
from coinfer.runtime.engine_warnings import EngineWarnings
from coinfer.runtime.rate_watch import RateWatch
from coinfer.runtime.timer import Timer
from coinfer.workload.scenario import Scenario


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
    counts = {"front": 0, "rear": 0, "side": 0}
    planned = {"front": 10.0, "rear": 10.0, "side": 10.0}
    watch = RateWatch(lambda: planned, lambda: counts, warnings, "calm")
    for _ in range(IN_A_ROW + 4):
        assert watch.due_in_s() == 0.0
        watch.look()
        assert watch.due_in_s() == WINDOW_S
        clock.at_s += WINDOW_S
        counts = {n: counts[n] + more for n, more in zip(counts, (500, 100, 20), strict=True)}
    (text,) = warnings
    assert text == (
        "requests come at other rates than the processors of plan 'calm' were chosen for: front at "
        "50/s and not 10/s, side at 2/s and not 10/s; what is loaded stays. Write these rates into "
        "the scenario, and plan anew: `coinfer plan SCENARIO -o FOLDER`"
    )


def test_it_compares_with_what_is_planned_now(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, warnings = Clock(), EngineWarnings()
    monkeypatch.setattr(module, "clock", clock)
    count = 0
    rates = [{"m": 10.0}] * 3 + [{"m": 50.0}] * 8 + [{}] * 8
    ahead = iter(rates)
    watch = RateWatch(lambda: next(ahead), lambda: {"m": count}, warnings, "calm")
    for _ in rates:
        watch.look()
        clock.at_s += WINDOW_S
        count += 500
    assert not warnings


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


def test_an_engine_of_a_plan_says_it_while_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_S", 0.05)
    ready = prepare(
        Scenario.model_validate(
            {
                "name": "calm",
                "models": {"m": {"source": "zoo:lenet"}},
                "processors": [{"name": "p", "backend": "null", "units": ["u"]}],
                "arrivals": {"m": {"poisson": 5.0}},
                "duration": "1s",
            }
        )
    )
    plan = dataclasses.replace(ready.plan, rates={"m": 5.0})
    with Engine(plan, ready.models) as engine:
        feed = ready.models["m"].sample_inputs()  # type: ignore[union-attr]
        until_s = time.monotonic() + 30.0
        while not any("plan anew" in text for text in engine.warnings):
            assert time.monotonic() < until_s
            for future in [engine.submit("m", feed) for _ in range(20)]:
                future.result(30.0)
            time.sleep(0.002)
        (text,) = [text for text in engine.warnings if "plan anew" in text]
        assert "of plan 'calm' were chosen for: m at " in text
        assert "and not 5/s" in text
