"""Blocking: how long requests that share an execution may keep a processor from all others.

The longer an execution, the longer what needs its units must wait. So one with riders must be over
in time for every waiting request with a deadline, and for those that are about to come
(`foresight`), unless they would be late for the first request alone already. Where any model has
deadlines it never lasts longer than `Limits.max_blocking_s`: what comes next may be foreseen by
nobody. Without such a limit that is twice the longest run of a single request; a run of a fused
variant, which takes as long for few as for many, may also last a quarter of the shortest time that
any request has had from its arrival to its deadline. Deadlines are looked after only while some
model batches or is fused.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from coinfer.core.flow import Flow
from coinfer.core.foresight import Foresight
from coinfer.core.lane import Lane
from coinfer.core.progress import Progress
from coinfer.core.request import Request
from coinfer.core.state import State
from coinfer.core.view import View

__all__ = ["Blocking"]

_FEW = 64

_SHARE = 0.25
"""Of the shortest time to a deadline: so long a fused run may keep a processor from others."""

_Due: TypeAlias = list[tuple[float, int]]
"""(deadline, id) as a heap; some no longer wait."""


@dataclass(slots=True, eq=False)
class Blocking:
    """Knows the deadlines of what waits and of what is about to come.

    Attributes:
        most_s: `Limits.max_blocking_s`.
        foresight: What is about to come.
        flow: How much work comes.
    """

    _state: State
    _view: View
    most_s: float | None
    foresight: Foresight = field(default_factory=Foresight)
    flow: Flow = field(init=False)
    _due: dict[Lane, _Due] = field(default_factory=dict)
    _patience_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with nothing seen."""
        self.flow = Flow(self._state)

    def arrived(self, request: Request) -> None:
        """Take note of a request that comes."""
        if request.deadline_s < math.inf:
            patience_s = request.deadline_s - request.arrival_s
            known_s = self._patience_s.get(request.model, math.inf)
            self._patience_s[request.model] = min(patience_s, known_s)
            self.foresight.note(request, self._state.now)

    @property
    def has_deadlines(self) -> bool:
        """Whether any request had a deadline since it looks after them."""
        return bool(self._patience_s or self._due)

    def note(self, progress: Progress) -> None:
        """Take note of a request that begins to wait."""
        request, lane = progress.request, progress.lane
        if request.deadline_s == math.inf:
            return
        due = self._due.get(lane)
        if due is None:
            self._due = {each: heap for each, heap in self._due.items() if len(each)}
            due = self._due[lane] = []
        heapq.heappush(due, (request.deadline_s, request.id))
        if len(due) > _FEW and len(due) > 2 * len(lane):
            due[:] = [entry for entry in due if self._waits(lane, entry[1])]
            heapq.heapify(due)

    def forget_lanes(self) -> None:
        """Forget what waits: all lanes are made anew, and what waits is noted again."""
        self._due.clear()
        self.flow.forget_lanes()

    def note_all(self, everyone: Iterable[Progress]) -> None:
        """Take note of what waits already."""
        for progress in everyone:
            if progress.waits:
                self.arrived(progress.request)
                self.note(progress)

    def longest_s(
        self,
        lane: Lane,
        processor: str,
        alone_s: float,
        riding: Collection[Lane] = (),
        *,
        is_too_much: bool = False,
    ) -> float:
        """Return for how long requests of a lane may keep a processor from now on.

        Args:
            lane: Their lane: what waits behind them there is served no later than without riders.
            processor: The processor.
            alone_s: The seconds of one of them. What is late by these does not count.
            riding: Other lanes of which the first request rides: what waits behind that is served
                no later, too.
            is_too_much: Whether more waits than can be done in time: somebody is late in any case.
        """
        view, now = self._view, self._state.now
        limit_s = self._most_s(processor, alone_s, bool(riding))
        if is_too_much:
            return limit_s
        near = self._state.neighbours[processor]
        for other, due in self._due.items():
            if other is lane or not due or other in riding:
                continue
            seconds = view.resident_s(other)
            if not seconds.keys().isdisjoint(near):
                least_s = min(seconds.values())
                due_s = self._first_due(other, due, now + least_s, now + least_s + alone_s)
                limit_s = min(limit_s, due_s - now - least_s)
        if self.foresight.is_needed(view):
            forecast, units = self.foresight.forecast(view), self._state.units_of[processor]
            end_s = forecast.latest_end_s(view.units_free_at(), units, now + alone_s)
            limit_s = min(limit_s, end_s - now)
        return limit_s

    def earliest_due_s(self, lane: Lane) -> float:
        """Return the earliest deadline of what waits in a lane and is not past."""
        due = self._due.get(lane)
        now = self._state.now
        return math.inf if due is None else self._first_due(lane, due, now, now)

    def _most_s(self, processor: str, alone_s: float, is_fused: bool) -> float:
        """Return the limit if nothing waits and nothing is foreseen."""
        models = self._state.variants
        least_s = min([s for m, s in self._patience_s.items() if m in models], default=math.inf)
        if least_s == math.inf:
            return math.inf
        if self.most_s is not None:
            return self.most_s
        view, state, longest_s = self._view, self._state, alone_s
        for model in models:
            lane = state.entrance(model)
            if lane.row is not None and processor in state.in_service:  # most are of one unit
                longest_s = max(longest_s, lane.row.get(processor, 0.0))
            elif view.can_run(lane, processor):
                longest_s = max(longest_s, state.step(lane, processor).seconds)
        most_s = 2 * longest_s
        return max(most_s, _SHARE * least_s) if is_fused else most_s

    def _first_due(self, lane: Lane, due: _Due, lost_s: float, from_s: float) -> float:
        """Return the first deadline from a moment on; forget those that are lost for certain."""
        while due and (due[0][0] < lost_s or not self._waits(lane, due[0][1])):
            heapq.heappop(due)
        if not due or due[0][0] >= from_s:
            return due[0][0] if due else math.inf
        found = [at_s for at_s, number in due if at_s >= from_s and self._waits(lane, number)]
        return min(found, default=math.inf)

    def _waits(self, lane: Lane, number: int) -> bool:
        progress = self._state.requests.get(number)
        return progress is not None and progress.waits and progress.lane is lane
