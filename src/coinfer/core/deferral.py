"""Deferral: lanes hold back until more requests come to share an execution, where that pays.

Settled before the policy is asked, which sees such a lane and can reserve it, not start it. Rules:
- With a `max_delay_s`, the first request of a lane waits for so long, unless the lane is full.
- Else only requests with deadlines wait, as in Symphony (Chen et al., arXiv 2308.07470), and only
  while that costs less than it brings: the next request is expected within the time of the
  processor that it saves by riding along, and no longer than that time in all.
- Nobody is held back for so long that a run with one rider more could make him late.
A deadline counts as a quarter earlier than it is: what was estimated may take longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from coinfer.core.blocking import Blocking
from coinfer.core.lane import Lane
from coinfer.core.request import Request
from coinfer.core.state import State
from coinfer.core.view import View

__all__ = ["Deferral"]

_MARGIN = 0.25
"""Share of the time until its deadline, from its arrival on, that a request keeps to spare."""


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
        batching = lane.batching
        return batching is not None and (batching.max_delay_s > 0 or request.deadline_s < math.inf)

    def settle(self) -> float:
        """Hold back what had better wait for others; return when to look again, if at all."""
        state = self._state
        again_s, held = math.inf, []
        for lane in self.held:
            if lane not in state.lanes:
                state.hold_back(lane, {})
        for lane in state.lanes:
            if lane.batching is None or lane.is_rare:
                continue
            ready_s = self._ready_s(lane)
            if ready_s > state.now:
                state.hold_back(lane, dict.fromkeys(lane.seconds, ready_s))
                held.append(lane)
                again_s = min(again_s, ready_s)
            elif lane.ready_s:
                state.hold_back(lane, {})
        self.held = held
        return again_s

    def _ready_s(self, lane: Lane) -> float:
        """Return the moment from which a lane may start; minus infinity: at once."""
        batching, first, count = lane.batching, lane.head, len(lane)
        assert batching is not None
        samples = max(lane.key.batch, 1)
        if (count + 1) * samples > batching.most:
            return -math.inf
        seconds = self._view.resident_s(lane)
        name = min(seconds, key=seconds.__getitem__, default="")
        if not name:
            return -math.inf
        last = None if lane.routes is None else self._state.step(lane, name).span.last
        runs_s = [
            self._state.step(lane, name, last, size * samples).seconds
            for size in (1, count, count + 1)
        ]
        until_s = self._worth_until_s(lane, first, runs_s)
        due_s = self._blocking.earliest_due_s(lane)
        if due_s < math.inf:
            rest_s = max(0.0, seconds[name] - runs_s[0])
            spare_s = _MARGIN * (due_s - first.arrival_s)
            until_s = min(until_s, due_s - spare_s - runs_s[2] - rest_s)
        return until_s

    def _worth_until_s(self, lane: Lane, first: Request, runs_s: list[float]) -> float:
        batching = lane.batching
        assert batching is not None
        if batching.max_delay_s > 0:
            return first.arrival_s + batching.max_delay_s
        saved_s = runs_s[0] + runs_s[1] - runs_s[2]
        if first.deadline_s == math.inf or self._blocking.foresight.gap_s(lane.model) > saved_s:
            return -math.inf
        return first.arrival_s + saved_s
