"""Deadline bound: the largest share of a scenario's deadlines that any schedule can meet.

It is the smaller of two. In the long run no more can be in time than there is time for on
processors that are fast enough (a linear program). And where the load repeats itself soon, a few
hyperperiods alone are scheduled as well as they can be (`coinfer.bound.in_time`): what comes
before and after only makes that harder. A hyperperiod is the time after which all frames are due as
they were at the start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from coinfer.bound.in_time import Job, most_in_time, most_in_time_per_s
from coinfer.plan.plan import Plan
from coinfer.workload.arrivals import After, Periodic
from coinfer.workload.cascades import root_of
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario

__all__ = ["deadline_bound"]

_MOST_JOBS = 14
"""In hyperperiods; more take long to schedule well."""

_EXACT = 10_000
"""Largest denominator of a rate per second: others are not taken for fractions."""


def deadline_bound(scenario: Scenario, plan: Plan) -> float | None:
    """Return the largest share of deadlines that can be met with the mean times of a plan.

    Args:
        scenario: The load, as it is run.
        plan: What is loaded where, and how long it takes there.

    Returns:
        The share, up to 1. None if nothing has a deadline or closed loops decide the rates; or
        where it would be no bound, because requests may share runs, preempt others, or be answered
        by several variants or in several spans.
    """
    rates = Load(scenario).open_rates_per_s()
    timed = {name: spec.deadline_s for name, spec in scenario.models.items() if spec.deadline_s}
    if not timed or not timed.keys() <= rates.keys() or not _is_plain(plan, list(timed)):
        return None
    seconds = {
        name: {
            p.name: s
            for p in plan.processors
            if (s := plan.profile.expected_s(name, p.name, batch=scenario.models[name].batch))
        }
        for name in timed
    }
    asked = {name: rates[name] for name in timed}
    able = {
        name: {p: s for p, s in row.items() if s <= timed[name]} for name, row in seconds.items()
    }
    per_s = sum(asked.values())
    if not per_s:
        return None
    share = most_in_time_per_s(asked, able, plan.processors) / per_s
    jobs = _jobs(scenario, timed, seconds)
    if jobs:
        share = min(share, most_in_time(jobs, plan.processors) / len(jobs))
    return min(1.0, share)


def _is_plain(plan: Plan, names: list[str]) -> bool:
    """Tell whether each request is one run of its own that nothing interrupts."""
    return not (
        plan.together
        or plan.fused
        or plan.cheaper
        or plan.works
        or any(processor.overlays for processor in plan.processors)
        or any(plan.models[name].is_cut for name in names)
    )


def _rates_per_s(scenario: Scenario, names: list[str]) -> dict[str, Fraction] | None:
    """Return the rates before they are scaled, as fractions; None if something is not periodic."""
    processes, found = scenario.processes, {}
    for name in names:
        process = processes.get(name)
        while isinstance(process, After) and process.probability == process.count == 1:
            process = processes[process.model]
        if not isinstance(process, Periodic) or process.jitter_s:
            return None
        rate = Fraction(process.rate_per_s).limit_denominator(_EXACT)
        if float(rate) != process.rate_per_s:
            return None
        found[name] = rate
    return found


def _jobs(
    scenario: Scenario, timed: Mapping[str, float], seconds: Mapping[str, Mapping[str, float]]
) -> list[Job]:
    """Make the requests of as many hyperperiods as are still few; none if one has too many.

    Those that others come after are first.
    """
    rates = _rates_per_s(scenario, list(timed))
    if rates is None:
        return []
    hyperperiod = Fraction(
        math.lcm(*(rate.denominator for rate in rates.values())),
        math.gcd(*(rate.numerator for rate in rates.values())),
    )
    in_one = sum(int(rate * hyperperiod) for rate in rates.values())
    length = hyperperiod * (_MOST_JOBS // in_one)
    jobs: list[Job] = []
    first: dict[str, int] = {}
    waiting = list(rates)
    while waiting:
        name = next(n for n in waiting if _before(n, scenario, rates) not in waiting)
        waiting.remove(name)
        before, root = _before(name, scenario, rates), root_of(name, scenario.processes)
        process = scenario.processes[root]
        assert isinstance(process, Periodic)
        follows = before in first and timed[name] <= timed[before]
        first[name] = len(jobs)
        for number in range(int(rates[name] * length)):
            due_s = process.phase_s + number / process.rate_per_s
            release_s = due_s / scenario.rate_factor
            after = first[before] + number if follows else None
            jobs.append(Job(release_s, release_s + timed[name], seconds[name], after))
    return jobs


def _before(name: str, scenario: Scenario, names: Mapping[str, object]) -> str:
    """Return the model that one comes after, if that has a deadline too; else nothing."""
    process = scenario.processes[name]
    return process.model if isinstance(process, After) and process.model in names else ""
