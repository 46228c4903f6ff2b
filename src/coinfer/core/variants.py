"""Variants: which variant serves a request that starts now. The rule of `when_late`.

Policies see the most accurate variant that a model may use, and name a request and a processor. At
the start a cheaper one is put in where that one would answer after the deadline, on this processor
and by the estimates: the most accurate that is in time. In time is who has a quarter of that time
to spare (`MARGIN`): what was estimated may take longer. If none is, then the one that is done
first: whoever waits behind it waits for less long. Variants change at the first span only; a
request without a deadline is never late.

Nobody rides along in a cheaper variant whom a more accurate one would serve in time.

Where memory has a budget, the time until the answer begins with that until the variant is loaded,
and a cheaper one is put in only where it is loaded. So who would be late by a load gets what is
there; who has no deadline waits, unless memory will never have room for the more accurate one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from coinfer.core.lane import Lane
from coinfer.core.request import Request
from coinfer.core.request_schedule import EQUAL_S
from coinfer.core.routes import HANDOVER_S, Step
from coinfer.core.state import State

__all__ = ["MARGIN", "Way", "best_way", "until_answer_s"]

MARGIN = 0.25
"""Share of the expected seconds until the answer that must be left after them until the deadline.
Where work is more than can be done, what waits is started as late as it may: without a margin half
of what the original serves would be late by the noise of its times."""


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


def best_way(state: State, lane: Lane, step: Step, request: Request) -> Way:
    """Return how a waiting request of a lane is served best.

    Args:
        state: The state.
        lane: Where it waits.
        step: The step of the lane's own variant.
        request: The request.
    """
    way, is_tight = Way(lane, step), state.residency.is_tight
    left_s = request.deadline_s - state.now + EQUAL_S
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
        other = state.step(cheaper, processor)
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
