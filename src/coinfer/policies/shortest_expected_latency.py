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

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coinfer.core.lane import Lane
from coinfer.core.lookahead import Lookahead
from coinfer.core.policy import Policy, Start, StartFork
from coinfer.core.request import Request
from coinfer.core.routes import Step
from coinfer.core.view import View
from coinfer.errors import ConfigurationError

__all__ = ["ShortestExpectedLatency"]


class _Given(NamedTuple):
    """A request that waits for the processor that it was given to."""

    request: Request
    step: Step


@dataclass(slots=True, kw_only=True)
class ShortestExpectedLatency(Policy):
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

    def decide(self, view: View) -> Iterator[Start | StartFork]:
        """Start what was given to free processors, and give more away if some have nothing."""
        while (start := self._next(view)) is not None:
            yield start

    def _next(self, view: View) -> Start | StartFork | None:
        free = set(view.idle()) if view.n_waiting else None
        if not free:
            return None
        self._given = [given for given in self._given if _stands(view, given)]
        lookahead = view.lookahead()
        for at, (request, step) in enumerate(self._given):
            if step.processor in free and _may_start(view, request, step):
                del self._given[at]
                return _start(view, request, step)
            _, free = _reserve(view, lookahead, view.lane_of(request), step, free)
        return self._give(view, lookahead, free) if free else None

    def _give(self, view: View, lookahead: Lookahead, free: set[str]) -> Start | StartFork | None:
        """Give requests away until one goes to a free processor; return its start."""
        waiting = self._not_given(view)
        while waiting and free and len(self._given) < self.window:
            lane = _most_demanding(lookahead, waiting)
            request = waiting[lane].pop()
            if not waiting[lane]:
                del waiting[lane]
            schedule = lookahead.schedule(lane)
            step = schedule.steps[0]
            name = step.processor
            if name in free and (lane.is_open or lane.may_start(name, view.now)):
                return schedule.begin(request, lane, free)
            self._given.append(_Given(request, step))
            riders, free = _reserve(view, lookahead, lane, step, free)
            if riders:  # they need no run of their own
                waiting = _without(waiting, riders)
        return None

    def _not_given(self, view: View) -> dict[Lane, list[Request]]:
        """Return what in the window was not given away, by lane, what was due first at the end."""
        given = {each.request.id for each in self._given}
        found = {
            lane: [request for request in requests if request.id not in given][::-1]
            for lane, requests in view.first_waiting(self.window).items()
        }
        return {lane: requests for lane, requests in found.items() if requests}


def _without(
    waiting: Mapping[Lane, Sequence[Request]], riders: Collection[Request]
) -> dict[Lane, list[Request]]:
    left = {
        lane: [request for request in requests if request not in riders]
        for lane, requests in waiting.items()
    }
    return {lane: requests for lane, requests in left.items() if requests}


def _most_demanding(lookahead: Lookahead, waiting: Mapping[Lane, Sequence[Request]]) -> Lane:
    """Return the lane whose schedule finishes last; on a tie, with the request due first."""
    best: tuple[float, float, int] | None = None
    for lane in sorted(waiting, key=lookahead.latest_s, reverse=True):
        if best is not None and lookahead.latest_s(lane) < best[0]:
            break  # no schedule finishes later than that
        request = waiting[lane][-1]
        value = (lookahead.schedule(lane).finish_s, -request.arrival_s, -request.id)
        if best is None or value > best:
            best, chosen = value, lane
    return chosen


def _stands(view: View, given: _Given) -> bool:
    """Tell whether a request still waits for the step that it was given to, and can get it."""
    request, step = given
    return view.waits(request) and view.can_run_span(
        view.lane_of(request), step.processor, step.span
    )


def _may_start(view: View, request: Request, step: Step) -> bool:
    lane = view.lane_of(request)
    return lane.is_open or lane.may_start(step.processor, view.now)


def _start(view: View, request: Request, step: Step) -> Start:
    last = None if view.lane_of(request).routes is None else step.span.last
    return Start(step.processor, (request,), last)


def _reserve(
    view: View, lookahead: Lookahead, lane: Lane, step: Step, free: set[str]
) -> tuple[Collection[Request], set[str]]:
    """Reserve what is offered for a step; return its riders, and what else is free."""
    riders = lookahead.reserve_step(lane, step)
    units = view.processors[step.processor].units
    return riders, {n for n in free if units.isdisjoint(view.processors[n].units)}
