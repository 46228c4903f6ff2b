"""Request schedule: the steps in which one request would finish soonest.

The dynamic programme of Band (MobiSys 2022, section 4.3): over the unit boundaries, the earliest
moment at which each can be reached, where a step starts when its processor is free and what comes
before it is done. It is exact for one request. Three things keep it cheap: requests of one lane
share a schedule, a first dive along the best steps often proves itself to be best, and what cannot
beat it by the best rest without waits (`Routes`) is not looked at. From one decision to the next
only guesses are kept, ways that were good before: timed anew they tell what need not be looked at,
and no schedule can be out of date.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from operator import itemgetter
from typing import NamedTuple

from coinfer.core.decision import Start, StartFork
from coinfer.core.lane import Lane
from coinfer.core.request import Request
from coinfer.core.routes import HANDOVER_S, Branching, Routes, Step
from coinfer.machine.span import Fork, Span

__all__ = [
    "EQUAL_S",
    "RequestSchedule",
    "better_schedule",
    "first_schedule",
    "schedule_alone",
    "schedule_request",
    "schedule_with_swaps",
]

_new = tuple.__new__
"""Makes the steps of a schedule: half the price of calling the class of a named tuple."""

EQUAL_S = 1e-9
"""Two ends less apart than this are the same: sums of the same times differ by rounding."""


class RequestSchedule(NamedTuple):
    """How a request would finish soonest.

    Attributes:
        steps: One or more, in order, up to the model's end.
        start_s: When the first step would start, in the engine's seconds.
        finish_s: When the last step would end.
        fork: If the first two steps are to start at the same time, which fork they are.
        variant: What is run; empty: what the lane shows.
    """

    steps: tuple[Step, ...]
    start_s: float
    finish_s: float
    fork: Fork | None = None
    variant: str = ""

    def begin(self, request: Request, lane: Lane, free: Collection[str]) -> Start | StartFork:
        """Return the decision that begins the schedule for a request of its lane.

        Args:
            request: The request.
            lane: Its lane.
            free: Processors that may be used, that of the first step among them. Without that of
                the other side of a fork, the first side is begun alone.
        """
        span, processor, _ = self.steps[0]
        if self.variant:  # it is put in at the start, and its spans are not those of the lane
            return Start(processor, (request,))
        if self.fork is not None and self.steps[1].processor in free:
            return StartFork(request, processor, self.steps[1].processor, self.fork)
        return Start(processor, (request,), None if lane.routes is None else span.last)


def schedule_alone(
    lane: Lane, seconds: Mapping[str, float], ready_s: Mapping[str, float]
) -> RequestSchedule:
    """Schedule a request whose rest is one step: its model is one unit.

    Args:
        lane: Its lane.
        seconds: Expected seconds by processor that may run it; at least one.
        ready_s: By processor, the moment when it can start something.
    """
    finish_s, chosen = math.inf, ""
    for name, service_s in seconds.items():
        end_s = ready_s[name] + service_s
        if end_s < finish_s:
            finish_s, chosen = end_s, name
    step = Step(lane.rest, chosen, seconds[chosen])
    return RequestSchedule((step,), ready_s[chosen], finish_s)


def schedule_request(
    routes: Routes, position: int, ready_s: Mapping[str, float], now: float
) -> RequestSchedule:
    """Schedule the steps of a request from a unit boundary to the end of its model.

    Args:
        routes: The ways of its model; at least one leads from the boundary to the end.
        position: The boundary.
        ready_s: By processor, the moment when it can start something; not before `now`.
        now: When the request can start.

    >>> rows = {Span(0, 1): {"cpu": 9.0}, Span(0, 0): {"npu": 1.0}, Span(1, 1): {"cpu": 4.0}}
    >>> routes = Routes(2, rows, ["cpu", "npu"])
    >>> [s.processor for s in schedule_request(routes, 0, {"cpu": 0.0, "npu": 0.0}, 0.0).steps]
    ['npu', 'cpu']
    >>> [s.processor for s in schedule_request(routes, 0, {"cpu": 0.0, "npu": 7.0}, 0.0).steps]
    ['cpu']
    """
    schedule, is_best = first_schedule(routes, position, ready_s, now)
    if schedule is None or not is_best:
        schedule = better_schedule(routes, position, ready_s, now, schedule)
    return schedule


def first_schedule(
    routes: Routes,
    position: int,
    ready_s: Mapping[str, float],
    now: float,
    limit_s: float = math.inf,
) -> tuple[RequestSchedule | None, bool]:
    """Schedule fast, in line: at each boundary as if nothing were busy afterwards.

    Arguments are those of `schedule_request`. Returns the schedule and whether it is known to be
    best; if not, the best finishes no later. A schedule that finishes after `limit_s` is not made.
    """
    units, at, reached_s = routes.units, position, now
    routes.refresh(position)
    ranked, known = routes.ranked, routes.first_steps
    steps: list[Step] = []
    first_s = least_s = math.inf
    while at < units:
        best_s, best_rank, chosen, begin_s = math.inf, 0, "", now
        for rest_s, rank, name in ranked[at]:
            if reached_s + rest_s > best_s:
                break  # all that follow take as long at least
            start_s = ready_s[name]
            if start_s < reached_s:
                start_s = reached_s
            end_s = start_s + rest_s
            if end_s < best_s or (end_s == best_s and rank < best_rank):
                best_s, best_rank, chosen, begin_s = end_s, rank, name, start_s
        if best_s > limit_s:
            return None, False
        if not steps:
            first_s, least_s = begin_s, best_s
        step = known[at].get(chosen) or routes.step(at, chosen)
        steps.append(step)
        (_, last), _, seconds = step
        reached_s = begin_s + seconds + HANDOVER_S
        at = last + 1
    finish_s = reached_s - HANDOVER_S
    if routes.forked is not None and _can_fork(ready_s, now):
        least_s = min(least_s, now + routes.forked.rest_s(position))
    return RequestSchedule(tuple(steps), first_s, finish_s), finish_s - least_s <= EQUAL_S


def better_schedule(
    routes: Routes,
    position: int,
    ready_s: Mapping[str, float],
    now: float,
    known: RequestSchedule | None,
    limit_s: float = math.inf,
) -> RequestSchedule:
    """Look at all that can beat a schedule and return the best.

    Other arguments are those of `schedule_request`.

    The best is known to finish before `limit_s`: the less this is, the less is looked at.

    Forks count only on processors that are ready now: nobody waits for two at once, and what is
    busy now will hardly be free in just the moment of a later fork. So a machine with enough to do
    is not slowed down by cuts that are good for forks only.
    """
    units, in_line = routes.units, routes
    forked = routes.forked if routes.forked is not None and _can_fork(ready_s, now) else None
    routes = routes if forked is None else forked
    routes.refresh(position)
    ways, tails = routes.ways, routes.tails
    if known is not None:
        limit_s = min(limit_s, known.finish_s - EQUAL_S)
    reached_s = [math.inf] * (units + 1)
    reached_s[position] = now
    came: list[tuple[int, str | Branching]] = [(-1, "")] * (units + 1)
    for at in range(position, units):
        here_s = reached_s[at]
        if here_s + tails[at] - HANDOVER_S >= limit_s:
            continue
        endings = routes.endings(at)
        for name, rest_s in ways[at].items():
            start_s = ready_s[name]
            if start_s < here_s:
                start_s = here_s
            left_s = limit_s - start_s
            if rest_s >= left_s:
                continue
            for total_s, seconds, to in endings.get(name) or routes.endings_of(at, name):
                if total_s >= left_s:
                    break
                end_s = start_s + seconds
                if to < units:
                    end_s += HANDOVER_S
                else:
                    limit_s = end_s
                if end_s < reached_s[to]:
                    reached_s[to] = end_s
                    came[to] = at, name
        if forked is not None:
            for branching in forked.soonest(at, here_s, ready_s, now + EQUAL_S, limit_s):
                to, end_s = branching.right.span.last + 1, branching.end_s
                if end_s + tails[to] < limit_s:
                    if to < units:
                        end_s += HANDOVER_S
                    else:
                        limit_s = end_s
                    if end_s < reached_s[to]:
                        reached_s[to] = end_s
                        came[to] = at, branching
    if came[units][0] < 0:  # only rounding can make a limit that nothing is below
        return known or schedule_request(in_line, position, ready_s, now)
    return _traced(routes, position, ready_s, now, came, reached_s)


def schedule_with_swaps(
    routes: Routes,
    position: int,
    ready_s: Mapping[str, float],
    swap_s: Mapping[str, float],
    now: float,
) -> RequestSchedule:
    """Schedule a request, in line, where some processors must change to its model first.

    The first step on such a processor takes that much longer. What is reached is kept by the
    processor that was last, so a schedule that stays where the model is already is found. It is
    exact for all schedules that never come back to such a processor from another.

    Args:
        routes: As for `schedule_request`, and so are `position`, `ready_s` and `now`.
        position: The boundary.
        ready_s: When each processor can start something.
        swap_s: By processor, the seconds until the model is there; where it is, nothing.
        now: When the request can start.
    """
    routes.refresh(position)
    units, ways, tails = routes.units, routes.ways, routes.tails
    reached: list[dict[str, tuple[float, tuple[Step, ...]]]] = [{} for _ in range(units + 1)]
    reached[position][""] = (now, ())
    finish_s = math.inf
    for at in range(position, units):
        times = routes.times[at]
        for here_s, steps in reached[at].values():
            there = {step.processor for step in steps}
            for name, rest_s in ways[at].items():
                start_s = max(ready_s[name], here_s)
                if name not in there:
                    start_s += swap_s.get(name, 0.0)
                if start_s + rest_s >= finish_s:
                    continue
                for to, seconds in enumerate(times[name], at + 1):
                    end_s = start_s + seconds
                    if end_s + tails[to] >= finish_s:
                        continue
                    if to == units:
                        finish_s = end_s
                    else:
                        end_s += HANDOVER_S
                    known = reached[to].get(name)
                    if known is None or end_s < known[0]:
                        step = Step(Span(at, to - 1), name, seconds)
                        reached[to][name] = (end_s, (*steps, step))
    finish_s, steps = min(reached[units].values(), key=itemgetter(0))
    return RequestSchedule(steps, max(now, ready_s[steps[0].processor]), finish_s)


def _can_fork(ready_s: Mapping[str, float], now: float) -> bool:
    """Tell whether two processors are ready, so that two spans could run at once."""
    return sum(moment_s <= now + EQUAL_S for moment_s in ready_s.values()) > 1


def _traced(
    routes: Routes,
    position: int,
    ready_s: Mapping[str, float],
    now: float,
    came: list[tuple[int, str | Branching]],
    reached_s: list[float],
) -> RequestSchedule:
    steps: list[Step] = []
    fork: Fork | None = None
    to = routes.units
    while to > position:
        at, how = came[to]
        if isinstance(how, str):
            fork = None
            span = _new(Span, (at, to - 1))
            steps.append(_new(Step, (span, how, routes.times[at][how][to - 1 - at])))
        else:
            fork = Fork(at, how.right.span.first, to - 1)
            steps += (how.right, how.left)
        to = at
    steps.reverse()
    start_s = max(now, ready_s[steps[0].processor])
    return RequestSchedule(tuple(steps), start_s, reached_s[routes.units], fork)
