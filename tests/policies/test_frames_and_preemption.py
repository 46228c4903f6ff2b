"""Frames that preemption does not bring in time are looked after as where nothing preempts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest

from coinfer.core.dispatcher import Limits
from coinfer.core.events import LoadedVariant
from coinfer.core.request import OnLate, Outcome
from coinfer.machine.processor import Processor
from coinfer.machine.variant_use import Use
from coinfer.policies import make_policy
from coinfer.testing.machine import VirtualMachine, processors, profile

PERIOD_S = 0.015
SECONDS = {
    # In time on both cores only: an express processor overlays one.
    "frame": {"one": 0.0223, "two": 0.0223, "both": 0.0125},
    "other": {"one": 0.0223, "two": 0.0223, "both": 0.0125},
}


def _with_express(ordinary: Sequence[Processor]) -> list[Processor]:
    return [
        *ordinary,
        *(
            dataclasses.replace(
                p, name=f"{p.name}+", units=frozenset({f"{p.name}+"}), overlays=p.units
            )
            for p in ordinary
            if len(p.units) == 1
        ),
    ]


def play(on_late: OnLate = OnLate.DROP) -> VirtualMachine:
    """Ask for frames, each due when the next one comes, and for something else at every tenth."""
    ordinary = processors("one", "two", both=["one", "two"])
    policy = make_policy("earliest_finish")
    limits = Limits(hang_min_s=math.inf)
    machine = VirtualMachine(_with_express(ordinary), policy, SECONDS, limits=limits)
    for at in range(200):
        at_s = at * PERIOD_S
        due = {"arrival_s": at_s, "deadline_s": at_s + PERIOD_S, "on_late": on_late}
        machine.submit("frame", **due)
        if at % 10 == 0:
            machine.submit("other", arrival_s=at_s, deadline_s=at_s + 0.15)
    machine.run()
    return machine


@pytest.fixture(scope="module")
def machine() -> VirtualMachine:
    return play()


def test_what_is_patient_costs_one_frame_each_time(machine: VirtualMachine) -> None:
    kept = [n for n, outcome in machine.outcomes().items() if outcome is Outcome.COMPLETED]
    assert len(kept) >= 20 + 200 - 20


def test_no_frame_that_may_be_dropped_is_started_where_it_would_be_late(
    machine: VirtualMachine,
) -> None:
    frames = [e for e in machine.executions if e.model == "frame"]
    assert {e.processor for e in frames} == {"both"}
    late = [e for e in frames if machine.finished_s[e.requests[0].id] > e.requests[0].deadline_s]
    assert not late


def test_frames_that_may_not_be_dropped_are_all_answered() -> None:
    outcomes = play(OnLate.RUN).outcomes()
    assert set(outcomes.values()) == {Outcome.COMPLETED}


@pytest.mark.parametrize("on_late", OnLate)
def test_a_lone_stream_runs_where_it_is_in_time(on_late: OnLate) -> None:
    machine = VirtualMachine(
        _with_express(processors("one", "two", both=["one", "two"])),
        make_policy("earliest_finish"),
        {"frame": {"one": 0.026, "two": 0.026, "both": 0.0214}},
        limits=Limits(hang_min_s=math.inf),
    )
    for at in range(60):
        at_s = at * 0.03
        machine.submit("frame", arrival_s=at_s, deadline_s=at_s + 0.024, on_late=on_late)
    machine.run()
    assert set(machine.outcomes().values()) == {Outcome.COMPLETED}
    assert {execution.processor for execution in machine.executions} == {"both"}


@pytest.mark.parametrize("on_late", OnLate)
def test_what_is_loaded_serves_what_may_be_dropped_in_place_of_what_is_not(
    on_late: OnLate,
) -> None:
    cheaper = profile("m@s", {"cpu": 0.01})
    machine = VirtualMachine(
        processors("cpu"),
        make_policy("earliest_finish"),
        {"m": {"cpu": 0.03}},
        variants={"m": (LoadedVariant("m@s", 0.05, Use.WHEN_LATE, 1, cheaper, (), {}, None),)},
        budget=100,
        sizes={"m": 60, "m@s": 30},
        limits=Limits(hang_min_s=math.inf),
    )
    for at in range(30):
        at_s = 1.0 + at * 0.05
        machine.submit("m", arrival_s=at_s, deadline_s=at_s + 0.02, on_late=on_late)
    machine.run()
    answered = [n for n, outcome in machine.outcomes().items() if outcome is Outcome.COMPLETED]
    assert len(answered) >= 29
