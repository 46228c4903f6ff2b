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
        assert text.startswith("m: ")
        assert "were chosen for 5;" in text
