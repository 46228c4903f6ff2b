"""Variants: which variant serves a request that starts now. The rule of `when_late`.

A policy names a request and a processor. At the start a cheaper variant is put in where the most
accurate one that the model may use would answer after the deadline, on this processor and by the
estimates: the most accurate that is in time. In time is who has a quarter of that time to spare
(`MARGIN`): what was estimated may take longer. If none is, then the one that is done first: whoever
waits behind it waits for less long. Variants change at the first span only; a request without a
deadline is never late.

What policies compare are the times of the most accurate variant as long as that is in time
somewhere; else, by processor, the times of what would be put in there (`offered_ways`). So they
choose another processor where that alone is in time.

Nobody rides along in a cheaper variant whom a more accurate one would serve in time.

Where memory has a budget, the time until the answer begins with that until the variant is loaded,
and a cheaper one is put in only where it is loaded. So who would be late by a load gets what is
there; who has no deadline waits, unless memory will never have room for the more accurate one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from coinfer.core.lane import Lane
from coinfer.core.learning import doubt
from coinfer.core.request import Request
from coinfer.core.request_schedule import EQUAL_S
from coinfer.core.routes import HANDOVER_S, Step
from coinfer.core.state import State

__all__ = ["MARGIN", "Way", "best_way", "doubt_better", "offered_ways", "until_answer_s"]

MARGIN = 0.25
"""Share of the expected seconds until the answer that must be left after them until the deadline.
Where work is more than can be done, what waits is started as late as it may: without a margin half
of what the original serves would be late by the noise of its times."""

_AT_ONCE: Mapping[str, float] = MappingProxyType({})


class Way(NamedTuple):
    """How a request is served on a processor.

    Attributes:
        lane: What its variant takes: the lane in which it waits, or one of `Lane.cheaper`.
        step: What of it is run.
        better_s: The least seconds, with the margin, until the answer by a more accurate variant:
            who has as much left until his deadline does not ride along. Infinite where none is more
            accurate.
    """

    lane: Lane
    step: Step
    better_s: float = math.inf


def best_way(
    state: State, lane: Lane, step: Step, request: Request, batch: int = 0, wait_s: float = 0.0
) -> Way:
    """Return how a waiting request of a lane is served best.

    Args:
        state: The state.
        lane: Where it waits.
        step: The step of the lane's own variant.
        request: The request.
        batch: Samples of the execution; by default those of the request.
        wait_s: Seconds until the processor is free.
    """
    way, is_tight = Way(lane, step), state.residency.is_tight
    left_s = request.deadline_s - state.now - wait_s + EQUAL_S
    if not lane.cheaper or (left_s == math.inf and not is_tight):
        return way
    least_s = until_answer_s(state, lane, step)
    better_s = (1 + MARGIN) * least_s
    if better_s <= left_s and least_s < math.inf:
        return way
    processor, soonest = step.processor, way
    for cheaper in lane.cheaper:
        if not state.can_run(cheaper, processor):
            continue
        other = state.step(cheaper, processor, None, batch)
        if is_tight and not state.residency.may_start(cheaper.variant, other.span, processor):
            continue
        seconds = until_answer_s(state, cheaper, other)
        way = Way(cheaper, other, better_s)
        if (1 + MARGIN) * seconds <= left_s:
            return way
        better_s = min(better_s, (1 + MARGIN) * seconds)
        if seconds < least_s:
            least_s, soonest = seconds, way
    return soonest


def doubt_better(state: State, lane: Lane, request: Request, chosen: Lane) -> None:
    """Doubt the estimates of more accurate variants by which they could never have been in time.

    Else a variant that was slow for a while would never be run again, which alone would show that
    it is not slow any more.

    Args:
        state: The state.
        lane: Where the request waits.
        request: The request.
        chosen: The lane of the cheaper variant that serves it.
    """
    for way in (lane, *lane.cheaper):
        if way is chosen:
            return
        routes = way.routes
        seconds = way.seconds if routes is None else routes.seconds(way.key.position)
        least_s = (1 + MARGIN) * min(seconds.values(), default=math.inf)
        if request.arrival_s + least_s > request.deadline_s:
            doubt(state, way)


def offered_ways(
    state: State, lane: Lane, names: Iterable[str], wait_s: Mapping[str, float] = _AT_ONCE
) -> dict[str, Lane] | None:
    """Return by processor what would serve the head of a lane; None: its own variant everywhere.

    That is so if its own is in time on one of these processors. Where memory has a budget it is
    always so: what is loaded decides.

    Args:
        state: The state.
        lane: Where it waits.
        names: The processors that it could be started on.
        wait_s: Seconds until those are free that are busy.
    """
    if not lane.cheaper or not lane.heap or state.residency.is_tight:
        return None
    head = lane.heap[0][2]
    left_s = head.deadline_s - state.now + EQUAL_S
    if left_s == math.inf:
        return None
    steps = {name: state.step(lane, name) for name in names if state.can_run(lane, name)}
    for name, step in steps.items():
        needed_s = wait_s.get(name, 0.0) + (1 + MARGIN) * until_answer_s(state, lane, step)
        if needed_s <= left_s:
            return None
    return {
        name: best_way(state, lane, step, head, 0, wait_s.get(name, 0.0)).lane
        for name, step in steps.items()
    }


def until_answer_s(state: State, lane: Lane, step: Step) -> float:
    """Return the seconds until the answer if a step starts as soon as it can, its load included."""
    held, routes = state.residency, lane.routes
    seconds = step.seconds
    if held.is_tight:
        seconds += held.wait_s(lane.variant, step.span, step.processor, state.now)
    if held.costs:
        seconds += held.cost_s(step.processor, lane.variant)
    last = step.span.last + 1
    if routes is not None and last < routes.units:
        seconds += routes.rest_s(last) + HANDOVER_S
    return seconds
