"""Routes and plans against trying out every chain of spans."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinfer.core.request_schedule import (
    EQUAL_S,
    RequestSchedule,
    better_schedule,
    first_schedule,
    schedule_request,
    schedule_with_swaps,
)
from coinfer.core.routes import HANDOVER_S, Routes
from coinfer.machine.span import Span

NAMES = ("p", "q", "r")
Rows = dict[Span, dict[str, float]]

# Far apart compared with the handover, and often equal.
times = st.sampled_from([0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.13])


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, Rows]:
    units = draw(st.integers(2, 5))
    rows: Rows = {}
    for first in range(units):
        for last in range(first, units):
            row = {n: s for n in NAMES if (s := draw(st.none() | times)) is not None}
            if row:
                rows[Span(first, last)] = row
    return units, rows


def chains(units: int, rows: Rows, at: int) -> Iterator[list[tuple[Span, str, float]]]:
    """Every chain of steps from a boundary to the end."""
    if at == units:
        yield []
    for span, row in rows.items():
        if span.first == at:
            for rest in chains(units, rows, span.last + 1):
                for name, seconds in row.items():
                    yield [(span, name, seconds), *rest]


def finish_s(chain, ready_s: Mapping[str, float], now: float) -> float:
    end_s = now - HANDOVER_S
    for _, name, seconds in chain:
        end_s = max(end_s + HANDOVER_S, ready_s[name]) + seconds
    return end_s


def best_s(units: int, rows: Rows, at: int, ready_s: Mapping[str, float], now: float) -> float:
    return min((finish_s(c, ready_s, now) for c in chains(units, rows, at)), default=math.inf)


@settings(max_examples=150, deadline=None)
@given(tables(), st.data())
def test_routes_are_the_best_without_waits_and_follow_every_change(table, data) -> None:
    units, rows = table
    routes = Routes(units, rows, NAMES)
    for _ in range(4):
        for at in data.draw(st.permutations(range(units))):
            expected = {
                name: min(
                    finish_s(chain, dict.fromkeys(NAMES, 0.0), 0.0)
                    for chain in chains(units, rows, at)
                    if chain[0][1] == name
                )
                for name in NAMES
                if any(chain[0][1] == name for chain in chains(units, rows, at))
            }
            assert dict(routes.seconds(at)) == pytest.approx(expected)
            assert routes.rest_s(at) == pytest.approx(min(expected.values(), default=math.inf))
            for name, seconds in expected.items():
                span, processor, step_s = routes.step(at, name)
                assert (span.first, processor) == (at, name)
                assert rows[span][name] == step_s
                tail = routes.rest_s(span.last + 1) + (HANDOVER_S if span.last + 1 < units else 0)
                assert step_s + tail == pytest.approx(seconds)
        tails = routes.tails
        for at in range(units):
            endings = routes.endings(at)
            for name, times_s in routes.times[at].items():
                expected_ends = [(s + tails[to], s, to) for to, s in enumerate(times_s, at + 1)]
                assert (endings.get(name) or routes.endings_of(at, name)) == sorted(expected_ends)
        for span in rows:
            reaches = routes.rest_s(span.last + 1) < math.inf
            assert routes.leads_on(span) is reaches
        if rows:
            span = data.draw(st.sampled_from(sorted(rows)))
            name = data.draw(st.sampled_from(sorted(rows[span])))
            rows[span][name] = data.draw(times)
            routes.observed(span, name, rows[span][name])


@settings(max_examples=300, deadline=None)
@given(tables(), st.fixed_dictionaries(dict.fromkeys(NAMES, times)), st.integers(0, 4))
def test_a_plan_finishes_as_soon_as_the_best_of_all_chains(table, waits, at) -> None:
    units, rows = table
    at = min(at, units - 1)
    routes = Routes(units, rows, NAMES)
    now = 7.0
    ready_s = {name: now + wait for name, wait in waits.items()}
    expected = best_s(units, rows, at, ready_s, now)
    if expected == math.inf:
        assert not routes.seconds(at)
        return
    plan = schedule_request(routes, at, ready_s, now)
    assert plan.finish_s == pytest.approx(expected, abs=2e-9)
    assert_holds(plan, units, rows, at, ready_s, now)
    first, is_best = first_schedule(routes, at, ready_s, now)
    assert_holds(first, units, rows, at, ready_s, now)
    assert first.finish_s >= expected - 2e-9
    if is_best:
        assert first.finish_s == pytest.approx(expected, abs=2e-9)


@settings(max_examples=300, deadline=None)
@given(tables(), st.fixed_dictionaries(dict.fromkeys(NAMES, times)), st.integers(0, 4), st.data())
def test_a_guess_saves_work_and_changes_no_plan(table, waits, at, data) -> None:
    units, rows = table
    at = min(at, units - 1)
    routes = Routes(units, rows, NAMES)
    now = 7.0
    ready_s = {name: now + wait for name, wait in waits.items()}
    found = list(chains(units, rows, at))
    if not found:
        return
    guess = data.draw(st.sampled_from(found))
    latest_s = finish_s(guess, ready_s, now) + EQUAL_S
    plan, is_best = first_schedule(routes, at, ready_s, now, latest_s)
    first, _ = first_schedule(routes, at, ready_s, now)
    assert plan == (first if first.finish_s <= latest_s else None)
    if not is_best:
        plan = better_schedule(routes, at, ready_s, now, plan, latest_s)
    assert plan == schedule_request(routes, at, ready_s, now)


def test_a_plan_is_found_although_rounding_hides_it() -> None:
    rows = {Span(0, 0): {"p": 0.5}, Span(1, 1): {"p": 0.5}}
    routes, ready_s = Routes(2, rows, NAMES), dict.fromkeys(NAMES, 3.0)
    plan = better_schedule(routes, 0, ready_s, 3.0, None, limit_s=4.0)
    assert plan == schedule_request(routes, 0, ready_s, 3.0)


def assert_holds(plan: RequestSchedule, units, rows, at, ready_s, now) -> None:
    """Its steps are allowed, follow on one another, and take what the plan says."""
    reached = at
    for step in plan.steps:
        assert step.span.first == reached
        assert rows[step.span][step.processor] == step.seconds
        reached = step.span.last + 1
    assert reached == units
    assert plan.finish_s == pytest.approx(finish_s(plan.steps, ready_s, now), abs=1e-9)
    assert plan.start_s == max(now, ready_s[plan.steps[0].processor])


def finish_with_swaps_s(chain, ready_s, swap_s, now: float, *, returns: bool) -> float:
    """The end of a chain if each processor changes once, or whenever it was not the last one."""
    end_s, there, last = now - HANDOVER_S, set(), ""
    for _, name, seconds in chain:
        needs = name not in there if returns else name != last
        end_s = max(end_s + HANDOVER_S, ready_s[name]) + swap_s.get(name, 0.0) * needs + seconds
        there.add(name)
        last = name
    return end_s


@settings(max_examples=300, deadline=None)
@given(
    tables(),
    st.fixed_dictionaries(dict.fromkeys(NAMES, times)),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0.02, 0.1, 1.0])),
    st.integers(0, 4),
)
def test_a_plan_counts_the_change_of_the_model(table, waits, swap_s, at) -> None:
    units, rows = table
    at = min(at, units - 1)
    routes = Routes(units, rows, NAMES)
    now = 7.0
    ready_s = {name: now + wait for name, wait in waits.items()}
    ways = list(chains(units, rows, at))
    if not ways:
        return
    plan = schedule_with_swaps(routes, at, ready_s, swap_s, now)
    assert [step.span.first for step in plan.steps] == [at, *(s.span.last + 1 for s in plan.steps)][
        :-1
    ]
    ends = [finish_with_swaps_s(c, ready_s, swap_s, now, returns=True) for c in ways]
    stays = [finish_with_swaps_s(c, ready_s, swap_s, now, returns=False) for c in ways]
    own_s = finish_with_swaps_s(plan.steps, ready_s, swap_s, now, returns=True)
    assert plan.finish_s == pytest.approx(own_s, abs=1e-9)
    assert min(ends) - 1e-9 <= plan.finish_s <= min(stays) + 1e-9
    if not swap_s:
        assert plan.finish_s == pytest.approx(best_s(units, rows, at, ready_s, now), abs=1e-9)


def test_a_plan_stays_where_the_model_is_loaded_once() -> None:
    # In pieces, as `max_span` cuts: the change pays over all of them, not over the first.
    rows = {Span(at, at): {"cpu": 5.0, "npu": 1.0} for at in range(10)}
    routes = Routes(10, rows, ["cpu", "npu"])
    plan = schedule_with_swaps(routes, 0, {"cpu": 0.0, "npu": 0.0}, {"npu": 4.5}, 0.0)
    assert {step.processor for step in plan.steps} == {"npu"}
    assert plan.finish_s == pytest.approx(14.5, abs=1e-3)
    dear = schedule_with_swaps(routes, 0, {"cpu": 0.0, "npu": 0.0}, {"npu": 45.0}, 0.0)
    assert {step.processor for step in dear.steps} == {"cpu"}


def test_only_allowed_processors_are_on_the_way() -> None:
    rows = {Span(0, 0): {"p": 1.0, "q": 0.1}, Span(1, 1): {"p": 1.0}}
    assert dict(Routes(2, rows, ["p"]).seconds(0)) == {"p": pytest.approx(2.0, abs=1e-3)}
    assert not Routes(2, rows, ["q"]).seconds(0)
    assert Routes(2, rows, []).rest_s(0) == math.inf


def test_a_cut_that_gains_nothing_is_not_made() -> None:
    rows = {Span(0, 1): {"p": 0.2}, Span(0, 0): {"p": 0.1}, Span(1, 1): {"p": 0.1, "q": 0.1}}
    routes = Routes(2, rows, ["p", "q"])
    assert routes.step(0, "p").span == Span(0, 1)
    assert len(schedule_request(routes, 0, {"p": 0.0, "q": 0.0}, 0.0).steps) == 1


def test_a_longer_span_is_not_taken_if_changing_over_is_faster() -> None:
    rows = {
        Span(0, 2): {"cpu": 9.0},
        Span(0, 0): {"cpu": 1.0},
        Span(1, 2): {"npu": 1.0},
    }
    routes = Routes(3, rows, ["cpu", "npu"])
    assert routes.step(0, "cpu").span == Span(0, 0)
    assert routes.seconds(0)["cpu"] == pytest.approx(2.0, abs=1e-3)
    routes.observed(Span(1, 2), "npu", 20.0)
    assert routes.step(0, "cpu").span == Span(0, 2)


def test_a_plan_waits_for_a_busy_processor_only_as_long_as_that_pays() -> None:
    rows = {
        Span(0, 2): {"cpu": 0.9},
        Span(0, 0): {"npu": 0.1, "cpu": 0.3},
        Span(1, 1): {"cpu": 0.3},
        Span(2, 2): {"npu": 0.1, "cpu": 0.3},
    }
    routes = Routes(3, rows, ["cpu", "npu"])

    def used(npu_s: float) -> str:
        steps = schedule_request(routes, 0, {"cpu": 0.0, "npu": npu_s}, 0.0).steps
        return " ".join(f"{s.processor}{s.span.first}{s.span.last}" for s in steps)

    assert used(0.0) == "npu00 cpu11 npu22"
    assert used(0.35) == "cpu00 cpu11 npu22"
    assert used(1.0) == "cpu02"
