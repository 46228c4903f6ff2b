"""What nobody runs because of an estimate must not stay so for ever."""

from __future__ import annotations

import math
from collections.abc import Collection

import pytest

from coinfer.core.commands import Execution
from coinfer.core.dispatcher import Limits
from coinfer.core.events import Arrived
from coinfer.core.request import OnLate, Outcome
from coinfer.policies import make_policy, policy_names
from coinfer.testing.machine import VirtualMachine, processors, request

STALLED = range(2)
"""Runs that take three times as long as they should."""


PERIOD_S = 0.015
MEASURED_S = 0.013


def run_frames(
    policy: str,
    true_s: float,
    n: int,
    measured_s: float = MEASURED_S,
    units: int = 1,
    noticed_s: float = 0.0,
    stalled: Collection[int] = STALLED,
) -> VirtualMachine:
    """Ask for `n` frames, each due when the next one comes; what is late may be dropped.

    The engine hears of each `noticed_s` seconds after it has come.
    """

    def service_s(execution: Execution) -> float:
        share = (execution.span.last - execution.span.first + 1) / units
        return share * (3 * measured_s if execution.id in stalled else true_s)

    options = {"assignment": {"m": "cpu"}} if policy == "fixed" else {}
    machine = VirtualMachine(
        processors("cpu"),
        make_policy(policy, **options),
        {"m": {"cpu": measured_s}},
        units={"m": units},
        service_s=service_s,
        limits=Limits(hang_min_s=math.inf),
    )
    for at in range(n):
        come_s = at * PERIOD_S
        due = {"deadline_s": come_s + PERIOD_S, "on_late": OnLate.DROP}
        machine.at(come_s + noticed_s, Arrived(request(id=at, arrival_s=come_s, **due)))
    machine.run()
    return machine


def in_time(machine: VirtualMachine) -> list[int]:
    """Return which frames were answered before the next one came."""
    return [
        number
        for number, outcome in machine.outcomes().items()
        if outcome is Outcome.COMPLETED
        and machine.finished_s[number] <= (number + 1) * PERIOD_S + 1e-9
    ]


@pytest.mark.parametrize("units", [1, 2])
@pytest.mark.parametrize("policy", policy_names())
def test_frames_are_not_dropped_for_ever_after_two_stalls(policy: str, units: int) -> None:
    machine = run_frames(policy, MEASURED_S, 60, units=units)
    assert set(range(40, 60)) <= set(in_time(machine))


@pytest.mark.parametrize("policy", policy_names())
def test_nor_where_only_the_way_to_the_engine_takes_what_is_left(policy: str) -> None:
    machine = run_frames(policy, MEASURED_S, 60, noticed_s=0.0009, stalled=range(1))
    assert set(range(40, 60)) <= set(in_time(machine))


@pytest.mark.parametrize("policy", ["earliest_finish", "edf", "least_slack"])
def test_what_was_measured_as_too_slow_is_dropped_as_before(policy: str) -> None:
    assert not run_frames(policy, 0.016, 20, measured_s=0.016).executions


@pytest.mark.parametrize("policy", ["earliest_finish", "edf", "least_slack"])
def test_of_what_has_become_too_slow_few_run(policy: str) -> None:
    assert 10 < len(run_frames(policy, 0.018, 400).executions) < 120
