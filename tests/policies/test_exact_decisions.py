"""The shortcuts of planning lose nothing: each decision against plans that are made plainly."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import pytest

from coinfer.core.events import ModelLoaded
from coinfer.core.lane import Lane
from coinfer.core.lookahead import FinishBounds, Lookahead
from coinfer.core.request_schedule import (
    EQUAL_S,
    RequestSchedule,
    schedule_alone,
)
from coinfer.core.routes import HANDOVER_S, Routes, Step
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.policies import make_policy
from coinfer.policies.planned import PlannedMapping
from coinfer.testing.machine import VirtualMachine, processors
from core.compiled import only_plain

PROCESSORS = processors("cpu0", "cpu1", "npu", "gpu", all=("cpu0", "cpu1"))
MODELS = {"a": 6, "b": 4, "c": 1, "d": 7}


class CheckedLookahead(Lookahead):
    """Compares each plan with one that is made anew, without bounds, dives and memory."""

    def best_schedule(self, bounds: FinishBounds) -> RequestSchedule:
        plan = super().best_schedule(bounds)
        assert plan.finish_s == pytest.approx(self.plain(bounds).finish_s, abs=2e-9)
        return plan

    def bounds(self, lane: Lane, own: Step | None = None) -> FinishBounds:
        bounds = super().bounds(lane, own)
        self.check(bounds)
        return bounds

    def look(self, bounds: FinishBounds) -> None:
        super().look(bounds)
        self.check(bounds)

    def check(self, bounds: FinishBounds) -> None:
        finish_s = self.plain(bounds).finish_s
        assert bounds.earliest_s - 2e-9 <= finish_s <= bounds.latest_s + 2e-9

    def plain(self, bounds: FinishBounds) -> RequestSchedule:
        ready_s, lane = self._ready_for(bounds), bounds.lane
        if lane.routes is not None:
            return plain_plan(lane.routes, lane.key.position, ready_s, self.now)
        seconds = {n: s for n, s in lane.seconds.items() if n in ready_s}
        return schedule_alone(lane, seconds, ready_s)


class CheckedChoice:
    """Compares what goes first with the first by the plain plans of all, and counts."""

    def __init__(self) -> None:
        self.first = PlannedMapping._first
        self.compared = 0

    def __call__(self, policy, groups, lookahead):
        for group in groups:
            lookahead.check(group.bounds)
        self.compared += len(groups) > 1
        latest = max(group.bounds.latest_s for group in groups)
        first = min(groups, key=lambda group: turn(policy, group, lookahead))
        chosen, plan = self.first(policy, groups, lookahead)
        if not policy._yields_exactly:  # by what is known so far, and no sooner than it can be
            assert chosen is first
            assert plan.finish_s <= latest
            assert plan.finish_s >= lookahead.plain(chosen.bounds).finish_s - 2e-9
            return chosen, plan
        values = [policy.order(g.request, lookahead.plain(g.bounds).finish_s) for g in groups]
        assert policy.order(chosen.request, plan.finish_s) == pytest.approx(min(values), abs=4e-9)
        return chosen, plan


def turn(policy, group, lookahead: Lookahead) -> tuple[float, float, int]:
    """Return where a group stands by the steps that are known, timed if they are not."""
    bounds, request = group.bounds, group.request
    latest_s = bounds.latest_s
    if not bounds.is_timed:
        ready_s, routes = lookahead._ready_for(bounds), bounds.served.routes
        reached_s = end_s = lookahead.now
        for span, name, _ in bounds.steps:
            seconds = routes.times[span.first][name][span.last - span.first]
            end_s = max(reached_s, ready_s[name]) + seconds
            reached_s = end_s + HANDOVER_S
        latest_s = end_s + EQUAL_S
        assert latest_s <= bounds.latest_s
    return policy.order(request, latest_s), request.arrival_s, request.id


def plain_plan(
    routes: Routes, position: int, ready_s: Mapping[str, float], now: float
) -> RequestSchedule:
    """Band's dynamic programme as it is written down."""
    reached_s = {position: (now - HANDOVER_S, ())}
    for to in range(position + 1, routes.units + 1):
        found = [
            (max(reached_s[at][0] + HANDOVER_S, ready_s[name]) + row[to - 1 - at], at, name)
            for at in range(position, to)
            if at in reached_s
            for name, row in routes.times[at].items()
            if len(row) >= to - at and row[to - 1 - at] < math.inf
        ]
        if found:
            end_s, at, name = min(found)
            step = Step(Span(at, to - 1), name, routes.times[at][name][to - 1 - at])
            reached_s[to] = (end_s, (*reached_s[at][1], step))
    finish_s, steps = reached_s[routes.units]
    return RequestSchedule(steps, max(now, ready_s[steps[0].processor]), finish_s)


def profile(model: str, units: int, draw: random.Random) -> Profile:
    """Times of all spans, none a multiple of another; the npu has a gap."""
    gap = draw.randrange(units) if units > 1 else -1
    entries = {}
    for name in ("cpu0", "cpu1", "npu", "gpu", "all"):
        unit_s = [draw.uniform(0.5, 4.0) for _ in range(units)]
        for first in range(units):
            for last in range(first, units):
                if name == "npu" and first <= gap <= last:
                    continue
                seconds = 0.2 + sum(unit_s[first : last + 1]) * draw.uniform(0.9, 1.0)
                entries[ProfileKey(model, name, 1, Span(first, last))] = Measurement(
                    seconds=(seconds * 1e-3,)
                )
    return Profile(entries)


def started(policy: str, seed: int) -> list[tuple[float, int, str, Span]]:
    draw, took = random.Random(seed), random.Random(seed)
    machine = VirtualMachine(
        PROCESSORS,
        make_policy(policy),
        {},
        service_s=lambda execution: execution.expected_s * took.uniform(0.8, 1.2),
        checked=False,
    )
    for model, units in MODELS.items():
        machine.post(ModelLoaded(model, units, profile(model, units, draw)))
    at_s = 0.0
    for _ in range(120):
        at_s += draw.expovariate(1 / 2.2e-3)
        patience = {"deadline_s": at_s + draw.uniform(0.01, 0.1)} if draw.random() < 0.5 else {}
        machine.submit(draw.choice(list(MODELS)), arrival_s=at_s, **patience)
    machine.run()
    return [(e.started_s, e.requests[0].id, e.processor, e.span) for e in machine.executions]


@only_plain
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "policy", ["heft", "heft_reserved", "least_slack", "shortest_expected_latency", "two_queues"]
)
def test_decisions_rest_on_the_best_plans(
    policy: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = started(policy, seed)
    choice = CheckedChoice()
    monkeypatch.setattr("coinfer.core.view.Lookahead", CheckedLookahead)
    monkeypatch.setattr(PlannedMapping, "_first", lambda *asked: choice(*asked))
    assert started(policy, seed) == plain
    assert any(span.first > 0 for _, _, _, span in plain)
    assert choice.compared > 100 or policy == "shortest_expected_latency"


@only_plain
@pytest.mark.parametrize("seed", range(3))
def test_with_reservations_little_more_than_what_starts_is_planned_exactly(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = []

    class CountingLookahead(Lookahead):
        def best_schedule(self, bounds: FinishBounds) -> RequestSchedule:
            exact.append(bounds)
            return super().best_schedule(bounds)

    monkeypatch.setattr("coinfer.core.view.Lookahead", CountingLookahead)
    n_started = len(started("heft_reserved", seed))
    assert n_started <= len(exact) <= 1.3 * n_started
