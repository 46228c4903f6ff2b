"""Deferral: lanes hold back until more requests come to share an execution, where that pays.

Settled before the policy is asked, which sees such a lane and can reserve it, not start it. Rules:
- With a `max_delay_s`, the first request of a lane waits for so long, unless the lane is full.
- Else only requests with deadlines wait, as in Symphony (Chen et al., arXiv 2308.07470), and only
  while that costs less than it brings: the next request is expected within the time of the
  processor that it saves by riding along, and no longer than that time in all. Where all that
  comes can be served in runs of its own with time to spare, nobody needs that time, and nobody
  waits for it.
- Where a fused variant may serve the lane, the next request is that of any member of which none
  waits. If all have one waiting, nobody is held back. Nor is anybody while there is time to spare.
- Nobody is held back for so long that a run with one rider more could make him late.
A deadline counts as a quarter earlier than it is: what was estimated may take longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeAlias

from coinfer.core.blocking import Blocking
from coinfer.core.fusing import Fused
from coinfer.core.lane import Lane, LaneKey
from coinfer.core.request import Request
from coinfer.core.state import State
from coinfer.core.view import View
from coinfer.machine.batching import Batching
from coinfer.machine.span import Span

__all__ = ["Deferral"]

_MARGIN = 0.25
"""Share of the time until its deadline, from its arrival on, that a request keeps to spare."""

_NEEDED = 0.8
"""Share of the time of the units that runs of a single request each must take before any is held
back: below that, waiting saves what nobody needs."""

_Sizes: TypeAlias = tuple[int, int, int]
"""What requests of several models must have in common to share a run."""

_Alike: TypeAlias = tuple[str, _Sizes]
"""A fused variant, and what else its requests must have in common."""

_Group: TypeAlias = tuple[int, float]
"""How many members of a fused variant have a request waiting, and the rate of all others."""


@dataclass(slots=True, eq=False)
class Deferral:
    """Holds lanes back, and lets them start when it is time.

    Attributes:
        held: Those that it holds back now.
    """

    _state: State
    _view: View
    _blocking: Blocking
    held: list[Lane] = field(default_factory=list)

    def may_hold(self, lane: Lane, request: Request) -> bool:
        """Tell whether a request that comes might be held back."""
        if not lane.shares:
            return False
        batching = lane.batching
        is_delayed = batching is not None and batching.max_delay_s > 0
        return is_delayed or request.deadline_s < math.inf

    @property
    def may_be_needed(self) -> bool:
        """Whether anything is held back, or might be: a delay or a deadline was ever asked for."""
        return bool(self._state.has_delays or self.held or self._blocking.has_deadlines)

    def forget_lanes(self) -> None:
        """Hold nothing back: all lanes are made anew."""
        self.held.clear()

    def settle(self) -> float:
        """Hold back what had better wait for others; return when to look again, if at all."""
        state = self._state
        again_s, held = math.inf, []
        groups: dict[_Alike, _Group] = {}
        waiting: dict[_Sizes, set[str]] = {}
        for lane in self.held:
            if lane not in state.lanes:
                state.hold_back(lane, {})
        for lane in state.lanes:
            if not lane.shares or lane.is_rare:
                continue
            batching = lane.batching
            is_delayed = batching is not None and batching.max_delay_s > 0
            if lane.heap[0][2].deadline_s == math.inf and not is_delayed:
                if lane.ready_s:
                    state.hold_back(lane, {})
                continue  # most are not held back, and this is asked at every event
            ready_s = self._ready_s(lane, groups, waiting)
            if ready_s > state.now:
                state.hold_back(lane, dict.fromkeys(lane.seconds, ready_s))
                held.append(lane)
                again_s = min(again_s, ready_s)
            elif lane.ready_s:
                state.hold_back(lane, {})
        self.held = held
        return again_s

    def _ready_s(
        self, lane: Lane, groups: dict[_Alike, _Group], waiting: dict[_Sizes, set[str]]
    ) -> float:
        """Return the moment from which a lane may start; minus infinity: at once.

        Args:
            lane: The lane.
            groups: What was found out for other lanes at this moment; added to.
            waiting: Likewise, which models have a fresh request waiting.
        """
        batching, first = lane.batching, lane.head
        is_delayed = batching is not None and batching.max_delay_s > 0
        seconds = self._view.resident_s(lane)
        name = min(seconds, key=seconds.__getitem__, default="")
        if not name:
            return -math.inf
        load, ready_s = self._blocking.flow.load(lane), -math.inf
        if batching is not None and (is_delayed or load >= _NEEDED):
            ready_s = self._stacked_ready_s(lane, batching, name, seconds[name])
        if lane.fused and ready_s <= self._state.now and first.deadline_s < math.inf:
            groups_of = self._groups_of(lane, groups, waiting, load, seconds[name])
            ready_s = self._fused_ready_s(lane, groups_of, name, seconds[name])
        return ready_s

    def _stacked_ready_s(self, lane: Lane, batching: Batching, name: str, seconds: float) -> float:
        """Return until when a lane waits for more of its own requests.

        Args:
            lane: The lane.
            batching: How far its requests may share executions.
            name: The processor where one is answered soonest.
            seconds: What that takes there.
        """
        state, first, count = self._state, lane.head, len(lane)
        samples = max(lane.key.batch, 1)
        if (count + 1) * samples > batching.most:
            return -math.inf
        last = None
        if lane.routes is not None:
            span = state.step(lane, name).span
            if (count + 1) * samples > batching.at(span):
                return -math.inf
            last = span.last
        elif not batching.max_delay_s:  # nearly always the next one comes far too late
            now_s = seconds if count == 1 else self._run_s(lane, name, last, count * samples)
            if self._blocking.foresight.gap_s(lane.model) > seconds + now_s:
                return -math.inf
        runs_s = [self._run_s(lane, name, last, size * samples) for size in (1, count, count + 1)]
        until_s = self._worth_until_s(lane, first, runs_s)
        due_s = self._blocking.earliest_due_s(lane)
        if due_s < math.inf:
            rest_s = max(0.0, seconds - runs_s[0])
            spare_s = _MARGIN * (due_s - first.arrival_s)
            until_s = min(until_s, due_s - spare_s - runs_s[2] - rest_s)
        return until_s

    def _run_s(self, lane: Lane, name: str, last: int | None, samples: int) -> float:
        return self._state.step(lane, name, last, samples).seconds

    def _fused_ready_s(
        self, lane: Lane, groups: list[tuple[Fused, _Group]], name: str, own_s: float
    ) -> float:
        """Return until when a lane waits for more members of a fused variant.

        Args:
            lane: The lane.
            groups: The fused variants for which it may be worth to wait.
            name: The processor where a request alone is answered soonest.
            own_s: What that takes there.
        """
        state, first, key = self._state, lane.head, lane.key
        until_s = -math.inf
        for fused, (count, rate) in groups:
            fused_s = state.estimates.row(fused.name, lane.rest, key.batch, key.shape).get(name)
            if fused_s is None or not state.residency.may_start(fused.name, Span(), name):
                continue
            alone_s, all_s = own_s + fused.handover_s, fused_s + fused.handover_s
            saved_s = alone_s + min(count * alone_s, all_s) - min((count + 1) * alone_s, all_s)
            if not rate * saved_s >= 1:
                continue
            wait_s = first.arrival_s + saved_s
            due_s = self._blocking.earliest_due_s(lane)
            if due_s < math.inf:
                wait_s = min(wait_s, due_s - _MARGIN * (due_s - first.arrival_s) - fused_s)
            until_s = max(until_s, wait_s)
        return until_s

    def _groups_of(
        self,
        lane: Lane,
        groups: dict[_Alike, _Group],
        waiting: dict[_Sizes, set[str]],
        load: float,
        own_s: float,
    ) -> list[tuple[Fused, _Group]]:
        """Return the fused variants of which another member comes before too much is lost by it.

        That is no more than the lane's own run, with handing it over: nothing else is saved. None
        while there is time to spare.
        """
        found = []
        for fused in lane.fused:
            alone_s = own_s + fused.handover_s
            if load * alone_s < _NEEDED * own_s:
                return []
            group = self._group(fused, lane.key, groups, waiting)
            if group[1] * alone_s >= 1:
                found.append((fused, group))
        return found

    def _group(
        self,
        fused: Fused,
        key: LaneKey,
        groups: dict[_Alike, _Group],
        waiting: dict[_Sizes, set[str]],
    ) -> _Group:
        """Return how many members have one waiting, and how often one of the others comes."""
        sizes = key.batch, key.queue, key.shape
        alike = fused.name, sizes
        found = groups.get(alike)
        if found is None:
            models = waiting.get(sizes)
            if models is None:
                models = waiting[sizes] = self._waiting(sizes)
            rates, rate = self._blocking.foresight.rates, 0.0
            others = [model for model in fused.members if model not in models]
            for model in others:
                rate += rates.get(model, 0.0)
            found = groups[alike] = (len(fused.members) - len(others), rate)
        return found

    def _waiting(self, sizes: _Sizes) -> set[str]:
        """Return the models of which fresh requests of these sizes wait."""
        found = set()
        for lane in self._state.lanes:
            if not lane.is_rare:
                key = lane.key
                if (key.batch, key.queue, key.shape) == sizes:
                    found.add(lane.model)
        return found

    def _worth_until_s(self, lane: Lane, first: Request, runs_s: list[float]) -> float:
        batching = lane.batching
        assert batching is not None
        if batching.max_delay_s > 0:
            return first.arrival_s + batching.max_delay_s
        saved_s = runs_s[0] + runs_s[1] - runs_s[2]
        if self._blocking.foresight.gap_s(lane.model) > saved_s:
            return -math.inf
        return first.arrival_s + saved_s
