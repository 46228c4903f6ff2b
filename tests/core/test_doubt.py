"""What nobody runs because of an estimate must not stay so for ever."""

from __future__ import annotations

import math
from collections.abc import Collection

import pytest

from coinfer.core.commands import Execution
from coinfer.core.dispatcher import Limits
from coinfer.core.events import Arrived, LoadedVariant
from coinfer.core.request import OnLate, Outcome
from coinfer.machine.variant_use import Use
from coinfer.policies import make_policy, policy_names
from coinfer.testing.machine import VirtualMachine, processors, profile, request

STALLED = range(2)
"""Runs that take three times as long as they should."""


PERIOD_S = 0.015
MEASURED_S = 0.013
SECONDS = {"fast": 0.01, "slow": 0.02}


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
    assert 5 < len(run_frames(policy, 0.018, 400).executions) < 40


def run_beside(slow: range, n: int) -> list[str]:
    """Ask one after the other, with everything slow for a while; return who ran."""

    def service_s(execution: Execution) -> float:
        return SECONDS[execution.processor] * (4 if execution.id in slow else 1)

    machine = VirtualMachine(
        processors("fast", "slow"),
        make_policy("shortest_expected_latency"),
        {"m": SECONDS},
        service_s=service_s,
        limits=Limits(hang_min_s=math.inf),
    )
    for _ in range(n):
        machine.submit()
        machine.run()
    return [execution.processor for execution in machine.executions]


@pytest.mark.parametrize("last", range(20, 60, 3))
def test_a_processor_that_was_slow_for_a_while_is_chosen_again(last: int) -> None:
    assert set(run_beside(range(10, last), 1500)[-100:]) == {"fast"}


def test_a_processor_that_stays_slow_is_tried_seldom() -> None:
    def service_s(execution: Execution) -> float:
        return {"fast": 0.04, "slow": 0.02}[execution.processor]

    machine = VirtualMachine(
        processors("fast", "slow"),
        make_policy("shortest_expected_latency"),
        {"m": SECONDS},
        service_s=service_s,
        limits=Limits(hang_min_s=math.inf),
    )
    for _ in range(4000):
        machine.submit()
        machine.run()
    ran = [execution.processor for execution in machine.executions][1000:]
    assert 0 < ran.count("fast") < 0.01 * len(ran)


def test_a_variant_that_was_slow_for_a_while_serves_again() -> None:
    def service_s(execution: Execution) -> float:
        return execution.expected_s if execution.variant != "m" else 3.0 if slow else 1.0

    cheaper = profile("m@c", {"cpu": 0.4})
    machine = VirtualMachine(
        processors("cpu"),
        make_policy("fcfs"),
        {"m": {"cpu": 1.0}},
        variants={"m": (LoadedVariant("m@c", 0.02, Use.WHEN_LATE, 1, cheaper, (), {}, None),)},
        service_s=service_s,
        limits=Limits(hang_min_s=math.inf),
    )
    for at in range(200):
        slow = at < 6
        machine.submit(deadline_s=machine.now + 1.6)
        machine.run()
    served = [execution.variant for execution in machine.executions]
    assert "m@c" in served[2:12]
    assert set(served[-50:]) == {"m"}


@pytest.mark.parametrize("slower", [1.3, 2.0])
def test_estimates_hold_where_more_comes_than_can_be_served(slower: float) -> None:
    seconds = 0.01
    machine = VirtualMachine(
        processors("cpu"),
        make_policy("earliest_finish"),
        {"m": {"cpu": seconds}},
        service_s=lambda _: slower * seconds,
        limits=Limits(hang_min_s=math.inf),
    )
    for at in range(3000):
        at_s = at * 0.001
        machine.submit(arrival_s=at_s, deadline_s=at_s + 0.06, on_late=OnLate.DROP)
    machine.run()
    completed = [n for n, out in machine.outcomes().items() if out is Outcome.COMPLETED]
    late = [n for n in completed if machine.finished_s[n] > n * 0.001 + 0.06 + 1e-9]
    assert len(completed) > 0.9 * 3 / (slower * seconds)
    assert len(late) < 0.25 * len(completed)
