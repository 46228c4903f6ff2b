"""Plans with forks against trying out every way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinfer.core.request_schedule import RequestSchedule, schedule_request
from coinfer.core.routes import FORK_S, HANDOVER_S, ForkRoutes, Routes
from coinfer.machine.span import Fork, Span

NAMES = ("p", "q", "r")
NEIGHBOURS = {"p": ("p", "r"), "q": ("q",), "r": ("p", "r")}
"""Processors p and r share a unit."""

Rows = dict[Span, dict[str, float]]
Way = list[tuple[tuple[Span, str], ...]]

times = st.sampled_from([0.01, 0.02, 0.03, 0.05, 0.08, 0.13])


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, Rows, list[Fork]]:
    units = draw(st.integers(2, 4))
    rows: Rows = {}
    for first in range(units):
        for last in range(first, units):
            row = {n: s for n in NAMES if (s := draw(st.none() | times)) is not None}
            if row:
                rows[Span(first, last)] = row
    possible = [
        Fork(first, middle, last)
        for first in range(units)
        for middle in range(first + 1, units)
        for last in range(middle, units)
    ]
    return units, rows, draw(st.lists(st.sampled_from(possible), unique=True))


def ways(units: int, rows: Rows, forks: list[Fork], at: int) -> Iterator[Way]:
    if at == units:
        yield []
    for span, row in rows.items():
        if span.first == at:
            for rest in ways(units, rows, forks, span.last + 1):
                yield from ([((span, name),), *rest] for name in row)
    for fork in forks:
        if fork.first == at:
            for rest in ways(units, rows, forks, fork.last + 1):
                for one in rows.get(fork.left, {}):
                    for other in rows.get(fork.right, {}):
                        if other not in NEIGHBOURS[one]:
                            yield [((fork.left, one), (fork.right, other)), *rest]


def finish_s(way: Way, rows: Rows, ready_s: Mapping[str, float], now: float) -> float:
    end_s = now - HANDOVER_S
    for steps in way:
        end_s += HANDOVER_S
        if len(steps) > 1:
            if any(ready_s[name] > now for _, name in steps):
                return math.inf
            end_s += FORK_S
        end_s = max(end_s, *(ready_s[name] for _, name in steps))
        end_s += max(rows[span][name] for span, name in steps)
    return end_s


def best_s(units, rows, forks, at, ready_s, now) -> float:
    found = ways(units, rows, forks, at)
    return min((finish_s(way, rows, ready_s, now) for way in found), default=math.inf)


def routes_of(units: int, rows: Rows, forks: list[Fork]) -> Routes:
    routes = Routes(units, rows, NAMES)
    forked = ForkRoutes(units, rows, NAMES, forks, NEIGHBOURS)
    routes.forked = forked if forked.has_forks else None
    return routes


def taken(plan: RequestSchedule) -> Way:
    """What a plan says: its first two steps may be a fork; which later ones are is not told."""
    steps = [(step.span, step.processor) for step in plan.steps]
    return [tuple(steps[:2])] if plan.fork else [(steps[0],)]


@settings(max_examples=200, deadline=None)
@given(tables(), st.data())
def test_a_plan_is_the_best_of_all_ways_with_forks_on_what_is_ready(table, data) -> None:
    units, rows, forks = table
    now = 5.0
    ready_s = {n: now + data.draw(st.sampled_from([0.0, 0.0, 0.02, 0.2])) for n in NAMES}
    routes = routes_of(units, rows, forks)
    for _ in range(2):
        for at in range(units):
            least_s = best_s(units, rows, forks, at, ready_s, now)
            if best_s(units, rows, [], at, ready_s, now) == math.inf:
                continue  # nothing is planned where no chain in line leads to the end
            plan = schedule_request(routes, at, ready_s, now)
            assert plan.finish_s == pytest.approx(least_s, abs=1e-8)
            begun = taken(plan)
            after = [way for way in ways(units, rows, forks, at) if way[:1] == begun]
            assert min(finish_s(way, rows, ready_s, now) for way in after) == pytest.approx(
                least_s, abs=1e-8
            )
            if plan.fork is not None:
                assert plan.fork in forks
                assert (plan.fork.left, plan.fork.right) == tuple(s.span for s in plan.steps[:2])
        if not rows:
            return
        span = data.draw(st.sampled_from(sorted(rows)))
        name = data.draw(st.sampled_from(sorted(rows[span])))
        rows[span][name] = data.draw(times)
        routes.observed(span, name, rows[span][name])


@settings(max_examples=100, deadline=None)
@given(tables(), st.data())
def test_the_least_rest_follows_every_change(table, data) -> None:
    units, rows, forks = table
    routes = ForkRoutes(units, rows, NAMES, forks, NEIGHBOURS)
    ready_s = dict.fromkeys(NAMES, 0.0)
    for _ in range(3):
        for at in range(units):
            expected = best_s(units, rows, forks, at, ready_s, 0.0)
            assert routes.rest_s(at) == pytest.approx(expected)
        if not rows:
            return
        span = data.draw(st.sampled_from(sorted(rows)))
        name = data.draw(st.sampled_from(sorted(rows[span])))
        rows[span][name] = data.draw(times)
        routes.observed(span, name, rows[span][name])


def test_forks_that_no_two_processors_can_take_are_none() -> None:
    rows = {Span(0, 0): {"p": 1.0}, Span(1, 1): {"p": 1.0, "r": 1.0}}
    assert not ForkRoutes(2, rows, NAMES, [Fork(0, 1, 1)], NEIGHBOURS).has_forks
    rows[Span(1, 1)]["q"] = 5.0
    assert ForkRoutes(2, rows, NAMES, [Fork(0, 1, 1)], NEIGHBOURS).has_forks
