"""Shortest expected latency: every request queues where its schedule finishes soonest.

Rule (Band, MobiSys 2022): every waiting request in the window is scheduled step by step, waits for
busy processors counted. The one whose soonest finish is the latest, the most demanding, goes first:
its first step is given to the processor of the schedule, free or busy. There it stays, in the order
of giving; the wait for that processor grows by its time, and the next request is chosen. When a
step ends, the rest of its request is scheduled anew.

Here a request is given away only when a processor is free that nothing was given to, so that
schedules are as fresh as can be, and at most `window` requests are given to busy processors at a
time. What was given to a processor that is lost is scheduled again. Short requests wait as long as
more demanding ones keep coming.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coinfer.core.lane import Lane
from coinfer.core.lookahead import Lookahead
from coinfer.core.policy import Start, StartFork
from coinfer.core.request import Request
from coinfer.core.routes import Step
from coinfer.core.view import View
from coinfer.errors import ConfigurationError
from coinfer.policies.one_by_one import OneByOne

__all__ = ["ShortestExpectedLatency"]


class _Given(NamedTuple):
    """A request that waits for the processor that it was given to."""

    request: Request
    step: Step


@dataclass(slots=True, kw_only=True)
class ShortestExpectedLatency(OneByOne):
    """Give every request to the processor on which its schedule begins.

    Attributes:
        window: How many waiting requests one decision looks at.
    """

    window: int = 10
    _given: list[_Given] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse an option that makes no sense."""
        if self.window < 1:
            raise ConfigurationError(
                "policy 'shortest_expected_latency': window must be at least 1"
            )

    def next(self, view: View) -> Start | StartFork | None:
        """Start what was given to a free processor; give more away if some have nothing."""
        free = set(view.idle()) if view.n_waiting else None
        if not free:
            return None
        self._given = [given for given in self._given if _stands(view, given)]
        lookahead = view.lookahead()
        for at, (request, step) in enumerate(self._given):
            lane, name = view.lane_of(request), step.processor
            if name in free and lane.may_start(name, view.now):
                del self._given[at]
                return Start(name, (request,), None if lane.routes is None else step.span.last)
            lookahead.reserve_step(lane, step, request)
            free.difference_update(view.sharing(name))
        return self._give(view, lookahead, free) if free else None

    def _give(self, view: View, lookahead: Lookahead, free: set[str]) -> Start | StartFork | None:
        """Give requests away until one goes to a free processor; return its start."""
        given = [each.request for each in self._given]
        waiting = _without(view.first_waiting(self.window), given)
        riding = {request.id for request in given}
        while waiting and free and len(self._given) < self.window:
            lane = _most_demanding(lookahead, waiting)
            request = waiting[lane][0]
            schedule = lookahead.schedule(lane)
            step = schedule.steps[0]
            name = step.processor
            if name in free and lane.may_start(name, view.now):
                return schedule.begin(request, lane, free)
            self._given.append(_Given(request, step))
            riders = lookahead.reserve_step(lane, step, request)  # they need no run of their own
            free.difference_update(view.sharing(name))
            riding.update([each.id for each in (request, *riders)])
            waiting = _without(waiting, (request, *riders))
        return self._start_others(view, lookahead, free, riding) if free else None

    def _start_others(
        self, view: View, lookahead: Lookahead, free: Collection[str], riding: Collection[int]
    ) -> Start | StartFork | None:
        """Start the first of what others cannot use: of lanes of which nothing was looked at.

        Args:
            view: What is known.
            lookahead: What is reserved.
            free: The free processors.
            riding: Who is given away, or needs no run of his own.
        """
        seen = view.first_waiting(self.window)
        for lane, request in view.others(self.window, seen, free):
            if request.id in riding:
                continue
            schedule = lookahead.schedule(lane)
            name = schedule.steps[0].processor
            if name in free and lane.may_start(name, view.now):
                return schedule.begin(request, lane, free)
        return None


def _without(
    waiting: Mapping[Lane, Iterable[Request]], gone: Collection[Request]
) -> dict[Lane, list[Request]]:
    left = {lane: [each for each in some if each not in gone] for lane, some in waiting.items()}
    return {lane: some for lane, some in left.items() if some}


def _most_demanding(lookahead: Lookahead, waiting: Mapping[Lane, Sequence[Request]]) -> Lane:
    """Return the lane whose schedule finishes last; on a tie, with the request due first."""
    best: tuple[float, float, int] | None = None
    for lane in sorted(waiting, key=lookahead.latest_s, reverse=True):
        if best is not None and lookahead.latest_s(lane) < best[0]:
            break  # no schedule finishes later than that
        request = waiting[lane][0]
        value = (lookahead.schedule(lane).finish_s, -request.arrival_s, -request.id)
        if best is None or value > best:
            best, chosen = value, lane
    return chosen


def _stands(view: View, given: _Given) -> bool:
    """Tell whether a request still waits for the step that it was given to, and can get it.

    What is not loaded there now may never be: it is given away anew.
    """
    request, step = given
    if not view.waits(request):
        return False
    lane = view.lane_of(request)
    return lane.may_start(step.processor, view.now) and view.can_run_span(
        lane, step.processor, step.span
    )
