"""Planned: the loop that HEFT, its reserving form and least slack share. Has no rule of its own.

Of the first `window` waiting requests the one that comes first by the rule is scheduled: in which
steps it would finish soonest, waits for busy processors counted. If the processor of its first step
is free, the step starts. If it is busy, the request yields: its time there is counted as reserved,
and the next request is looked at; if no more are left in the window, those that come first of the
models that were not among them. The schedule holds for this one decision; at the next, and after
every step, it is made anew. Requests of one lane share a schedule.

What yields also keeps the units that it waits for: a processor made of several units gets its turn
although others would take its units one by one.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from types import MappingProxyType
from typing import ClassVar

from coinfer.core.lane import Lane
from coinfer.core.lookahead import FinishBounds, Lookahead
from coinfer.core.policy import Decision, Drop, Start, StartFork, WaitUntil
from coinfer.core.request import Request
from coinfer.core.request_schedule import RequestSchedule
from coinfer.core.routes import Step
from coinfer.core.view import View
from coinfer.errors import ConfigurationError
from coinfer.policies.one_by_one import OneByOne, look_again_s

__all__ = ["PlannedMapping"]

_NOTHING: Mapping[int, Step] = MappingProxyType({})


class _Group:
    """Requests of one lane that share a schedule, in order.

    Attributes:
        bounds: What is known of the schedule.
        request: The next one.
    """

    __slots__ = ("_rest", "bounds", "request")

    def __init__(self, bounds: FinishBounds, requests: Iterable[Request]) -> None:
        self.bounds = bounds
        self._rest = iter(requests)
        self.request = next(self._rest)

    def skip(self, riders: Collection[Request] = ()) -> bool:
        """Go on to the next request that is none of these; tell whether there is one."""
        ids = {rider.id for rider in riders} if riders else ()
        following = next(self._rest, None)
        while following is not None and following.id in ids:
            following = next(self._rest, None)
        if following is None:
            return False
        self.request = following
        return True


@dataclass(slots=True, kw_only=True)
class PlannedMapping(OneByOne):
    """Base of the rules that differ only in which scheduled request goes first.

    Attributes:
        window: How many waiting requests one decision looks at.
    """

    window: int = 10
    _yields_exactly: ClassVar[bool] = True
    """Whether requests yield by their best schedules; if not, by ones that are made faster. What
    starts always starts by its best one."""

    def __post_init__(self) -> None:
        """Refuse an option that makes no sense."""
        if self.window < 1:
            raise ConfigurationError(f"policy {type(self).__name__!r}: window must be at least 1")

    @abstractmethod
    def order(self, request: Request, finish_s: float) -> float:
        """Return a number that is smaller the sooner the request is served.

        It must not grow with `finish_s`, when the request's schedule finishes.
        """

    def is_late(self, _request: Request, _lane: Lane, _lookahead: Lookahead) -> bool:
        """Tell whether a request must be dropped, given what runs."""
        return False

    def taken(self, _view: View) -> Mapping[int, Step]:
        """Return the steps that are reserved for requests on their way, by request."""
        return _NOTHING

    def note(self, _request: Request, _schedule: RequestSchedule) -> None:
        """Take note of a request whose schedule is begun."""

    def next(self, view: View) -> Decision | None:
        """Start the first step, or both of a fork, of what finds its processor free."""
        unclaimed = set(view.idle()) if view.n_waiting else None
        if not unclaimed:
            return None
        lookahead, taken = view.lookahead(), self.taken(view)
        if taken:
            lookahead.take(taken.values())
        first, riding = view.first_waiting(self.window), set[int]()
        decision = self._start(view, _groups(first, taken, lookahead), unclaimed, lookahead, riding)
        if not unclaimed or isinstance(decision, Start | StartFork | Drop):
            return decision
        left = view.others(self.window, first, unclaimed)
        others = {lane: (request,) for lane, request in left if request.id not in riding}
        groups = _groups(others, taken, lookahead)  # what the first ones leave
        other = self._start(view, groups, unclaimed, lookahead, riding) if groups else None
        if isinstance(decision, WaitUntil) and isinstance(other, WaitUntil):
            return min(decision, other)
        return other or decision

    def _start(
        self,
        view: View,
        groups: list[_Group],
        unclaimed: set[str],
        lookahead: Lookahead,
        riding: set[int],
    ) -> Decision | None:
        """Start the first of these whose processor is free; others claim what they wait for.

        Args:
            view: What is known.
            groups: The requests.
            unclaimed: The free processors that nobody waits for.
            lookahead: What is reserved.
            riding: Who needs no run of his own: those are added.
        """
        for group in groups:
            if self.is_late(group.request, group.bounds.lane, lookahead):
                return Drop(group.request, "no plan can meet its deadline any more")
        again_s = math.inf
        while groups and unclaimed:
            group, schedule = self._first(groups, lookahead)
            lane = group.bounds.lane
            if not self._yields_exactly and schedule.steps[0].processor in unclaimed:
                schedule = lookahead.best_schedule(group.bounds)
            step = schedule.steps[0]
            name = step.processor
            if name in unclaimed and (lane.is_open or lane.may_start(name, view.now)):
                self.note(group.request, schedule)
                return schedule.begin(group.request, lane, unclaimed)
            if again_s == math.inf:
                again_s = look_again_s(view.now, view.resident_s(lane), name, unclaimed)
            riders = lookahead.reserve_step(lane, step, group.request)
            riding.update([rider.id for rider in riders])
            unclaimed.difference_update(view.sharing(name))
            for each in [group, *_riding(groups, group, riders)] if riders else (group,):
                if not each.skip(riders):
                    groups.remove(each)
                    lookahead.forget(each.bounds)
        return WaitUntil(again_s) if view.now < again_s < math.inf else None

    def _first(
        self, groups: Sequence[_Group], lookahead: Lookahead
    ) -> tuple[_Group, RequestSchedule]:
        """Return what comes first; on a tie what was due first.

        Schedules are made only where they could matter: a finish that is known to be no later tells
        how soon a request could be served at best.
        """
        order = self.order
        if not self._yields_exactly:
            group = self._first_known(groups, lookahead)
            return group, lookahead.good_schedule(group.bounds)
        hopes = [
            (order(group.request, group.bounds.latest_s), group.request.id, group)
            for group in groups
        ]
        heapify(hopes)  # ids differ: groups are not compared
        best: tuple[float, float, int] | None = None
        while hopes:
            hope, number, group = hopes[0]
            if best is not None and hope > best[0]:
                break
            request, bounds = group.request, group.bounds
            if not bounds.is_looked_at:
                lookahead.look(bounds)
                heapreplace(hopes, (order(request, bounds.latest_s), number, group))
                continue
            heappop(hopes)
            schedule = lookahead.best_schedule(bounds)
            value = (order(request, schedule.finish_s), request.arrival_s, number)
            if best is None or value < best:
                best, chosen = value, (group, schedule)
        return chosen

    def _first_known(self, groups: Sequence[_Group], lookahead: Lookahead) -> _Group:
        """Return what comes first by the steps that are known now.

        They are timed only where that can matter.
        """
        best: tuple[float, float, int] | None = None
        order, time = self.order, lookahead.time
        for group in groups:
            request, bounds = group.request, group.bounds
            turn = order(request, bounds.latest_s)
            if best is not None and turn > best[0]:
                continue
            if not bounds.is_timed:
                time(bounds)
                turn = order(request, bounds.latest_s)
            value = (turn, request.arrival_s, request.id)
            if best is None or value < best:
                best, chosen = value, group
        return chosen


def _riding(groups: Iterable[_Group], group: _Group, riders: Collection[Request]) -> list[_Group]:
    """Return the other groups of which the next request rides."""
    ids = {rider.id for rider in riders}
    return [each for each in groups if each is not group and each.request.id in ids]


def _groups(
    looked_at: Mapping[Lane, Iterable[Request]], taken: Mapping[int, Step], lookahead: Lookahead
) -> list[_Group]:
    groups = []
    for lane, requests in looked_at.items():
        if not taken or not lane.key.position:  # nothing of them has run: nothing is reserved
            groups.append(_Group(lookahead.bounds(lane), requests))
            continue
        by_step: dict[Step | None, list[Request]] = {}
        for request in requests:
            by_step.setdefault(taken.get(request.id), []).append(request)
        groups += [_Group(lookahead.bounds(lane, own), some) for own, some in by_step.items()]
    return groups
