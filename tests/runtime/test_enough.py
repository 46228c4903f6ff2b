"""Who has seen enough ends a load at once, but never while something runs on its sessions."""

from __future__ import annotations

import threading
import time

import pytest

from coinfer.backends.null import NullBackend, NullSession
from coinfer.backends.reused_sessions import reused_sessions
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.metrics.counts import RunCounts
from coinfer.model import Model
from coinfer.runtime.play import play
from coinfer.workload.scenario import Scenario
from runtime.engines import FEED, MODEL, ready

pytestmark = pytest.mark.alone

CPU = Processor(name="p", backend="null", units=frozenset({"p"}))
PATIENCE_S = 2.5
"""Longer than an engine waits that stops in haste."""


class Slow(NullBackend):
    """Its runs take a while; it counts those that go on."""

    def __init__(self) -> None:
        super().__init__()
        self.running = 0
        self.begun = threading.Event()

    def load(self, model: Model, processor: Processor) -> NullSession:
        session = super().load(model, processor)
        inner = session.run

        def run(inputs: dict[str, object]) -> object:
            self.running += 1
            self.begun.set()
            time.sleep(PATIENCE_S)
            self.running -= 1
            return inner(inputs)  # type: ignore[arg-type]

        session.run = run  # type: ignore[assignment,method-assign]
        return session


def test_nothing_runs_on_a_session_that_the_next_engine_is_given() -> None:
    backend = Slow()
    scenario = Scenario.model_validate(
        {
            "models": {"m": {"source": "x"}},
            "arrivals": {"m": {"periodic": 20}},
            "duration": 60.0,
            "warmup": 0.0,
            "policy": "fcfs",
        }
    )

    def enough(_tallies: RunCounts) -> bool:
        return backend.begun.is_set()

    with reused_sessions([CPU], {"null": backend}) as backends:
        played = play(
            ready(scenario, MODEL, FEED, [CPU], Profile.from_seconds({"m": {"p": PATIENCE_S}})),
            enough=enough,
            backends=backends,
        )
        assert backend.begun.is_set()
        assert backend.running == 0
    assert played.run_counts.duration_s < scenario.duration_s
