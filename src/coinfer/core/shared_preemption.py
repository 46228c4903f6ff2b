"""Shared preemption: which urgent requests share one run on an express processor.

The rule of `coinfer.core.riders` for fused variants, where runs preempt: the first waiting request
of each other member rides along if it is in time by that, and one run takes less than runs of their
own, handing each over included. Beside threads of a lower priority each hand-over may take a time
slice, so all of them are answered after one. Of several fused variants the one is taken that takes
least per request. Nobody who waits, and would go before some of them, becomes late by the longer
run. What is compared are times as measured: how much slower runs are than that is learnt only of
what runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from coinfer.core.express import ExpressProcessors
from coinfer.core.fusing import Fused
from coinfer.core.lane import Lane
from coinfer.core.request import Request
from coinfer.core.riders import LEAST_GAIN, MOST_UNFAIR
from coinfer.core.routes import Step
from coinfer.core.state import State

__all__ = ["Shared", "shared_run"]

Shared = tuple[str, Step, tuple[Request, ...]]
"""A fused variant, its step, and who rides along with the first request."""


def shared_run(
    state: State,
    express: ExpressProcessors,
    lane: Lane,
    request: Request,
    step: Step,
    longest_s: Callable[[Collection[str]], float],
    urgent: Sequence[Request],
) -> Shared | None:
    """Return how a request that is to start on an express processor shares the run; None: not.

    Args:
        state: The state.
        express: The express processors.
        lane: Where the request waits.
        request: The request.
        step: Its step there, alone.
        longest_s: Returns how long a run may take that serves requests of these models.
        urgent: The most urgent requests that waited a moment ago, in the order of their urgency.
    """
    processor, key = step.processor, lane.key
    alone_s = {lane: _measured_s(express, lane.variant, step, lane)}
    found, least_s = None, math.inf
    for fused in lane.fused:
        row = express.estimates.row(fused.name, step.span, key.batch, key.shape)
        seconds = row.get(processor)
        if seconds is None or seconds > request.deadline_s - state.now:
            continue
        if not state.residency.may_start(fused.name, step.span, processor):
            continue
        riding = _riding(state, express, lane, request, fused, step, seconds, alone_s)
        if not riding:
            continue
        count = len(riding)
        measured_s = _measured_s(express, fused.name, step, lane)
        apart_s = alone_s[lane] + sum([alone_s[each] for each in riding])
        saved_s = (1 - LEAST_GAIN) * apart_s + fused.handover_s * count - measured_s
        each_s = (measured_s + fused.handover_s) / (1 + count)
        if saved_s <= 0 or each_s >= least_s:
            continue
        if seconds > longest_s({lane.model, *[each.model for each in riding]}):
            continue
        if _makes_late(state, express, request, step, seconds, riding, urgent):
            continue
        least_s = each_s
        riders = tuple([each.head for each in riding])
        found = fused.name, Step(step.span, processor, seconds), riders
    return found


def _riding(
    state: State,
    express: ExpressProcessors,
    lane: Lane,
    request: Request,
    fused: Fused,
    step: Step,
    seconds: float,
    alone_s: dict[Lane, float],
) -> list[Lane]:
    """Return the lanes of which the first request may ride in a fused run of so many seconds.

    `alone_s` is filled with what their own runs take, as measured; infinite where there are none.
    """
    found, now = [], state.now
    for other in state.heads_of(fused, lane.key):
        rider = other.head
        if other is lane or fused not in other.fused or rider.sizes != request.sizes:
            continue
        if seconds > rider.deadline_s - now:
            continue
        own_s = alone_s.get(other)
        if own_s is None:
            own_s = alone_s[other] = _measured_s(express, other.variant, step, lane)
        if own_s < math.inf:
            found.append(other)
    return found


def _makes_late(
    state: State,
    express: ExpressProcessors,
    request: Request,
    step: Step,
    seconds: float,
    riding: Sequence[Lane],
    urgent: Sequence[Request],
) -> bool:
    """Tell whether someone who waits would be in time only if those who ride went alone."""
    riders = {lane.head.id for lane in riding}
    done_s = step.seconds  # when those that are more urgent than the present one would be done
    for each in urgent:
        if not riders:
            return False  # the rest would go after all of these, and gains
        if each.id == request.id or each.id not in state.waiting:
            continue
        lane = state.requests[each.id].lane
        row = express.estimates.row(lane.variant, lane.rest, lane.key.batch, lane.key.shape)
        own_s = row.get(step.processor, math.inf)
        if each.id in riders:
            riders.remove(each.id)
            done_s += own_s
        elif done_s + own_s <= each.deadline_s - state.now < seconds + own_s:
            return True
    return False


def _measured_s(express: ExpressProcessors, variant: str, step: Step, lane: Lane) -> float:
    """Return what a run takes without what slows it down here, as far as that is believed.

    Infinite: that processor has no such run.
    """
    (span, processor, _), key = step, lane.key
    learnt_s = express.estimates.row(variant, span, key.batch, key.shape).get(processor)
    if learnt_s is None:
        return math.inf
    known_s = express.estimates.measured(variant, span, key.batch, key.shape)[processor]
    if learnt_s <= known_s or known_s <= 0:
        return learnt_s
    return max(known_s, learnt_s / MOST_UNFAIR)
