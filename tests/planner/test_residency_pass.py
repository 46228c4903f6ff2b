"""How much memory plans give to what is loaded."""

from __future__ import annotations

import dataclasses

import pytest

from coinfer.errors import ConfigurationError
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.plan.plan import Plan
from coinfer.planner.passes import residency as module
from coinfer.planner.passes.residency import residency
from coinfer.planner.planning import Planning
from coinfer.planner.wishes import Wishes
from coinfer.profiling import Profiler

CPU = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
ENTRY = Measurement(seconds=(0.01,), resident_bytes=100)


def planned(**memory: int) -> Plan:
    entries = {ProfileKey(name, "cpu"): ENTRY for name in "ab"}
    plan = Plan.of(Machine(processors=(CPU,), profile=Profile(entries)))
    plan = dataclasses.replace(plan, memory=memory)
    planning = Planning(models={}, wishes=Wishes(memory=memory), profiler=Profiler(), samples={})
    return residency(plan, planning)


@pytest.mark.parametrize(("there", "budget"), [(None, {}), (250, {}), (249, {"host": 199})])
def test_only_what_does_not_fit_gets_a_budget(
    there: int | None, budget: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "memory_bytes", lambda: there)
    plan = planned()
    assert plan.memory == budget
    assert bool(plan.warnings) == bool(budget)


def test_a_wish_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "memory_bytes", lambda: 1)
    assert planned(host=120).memory == {"host": 120}


def test_a_model_that_cannot_run_is_refused_while_planning() -> None:
    with pytest.raises(ConfigurationError, match="needs at least 100 B at a time"):
        planned(host=99)
