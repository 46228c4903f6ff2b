"""Flow: whether the other processors have enough to do while one runs several requests at once.

A run of several saves work, but where nothing follows it can be what all wait for in the end: of 16
requests that come at once, eight cores are done sooner with two each than one of them with all. So
a run may last as long as the others have work: what waits beside it, what runs there, and what is
to come by the mean rate of before. What came at one moment counts as one event; where the next
event is overdue by several gaps, nothing is to come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from coinfer.core.lane import Lane
from coinfer.core.state import State

__all__ = ["Flow"]

_WEIGHT = 0.1
"""Of the last gap, and of what came with it, in the means, once there were enough."""

_FEWEST = 3
"""Gaps before anything is expected to come."""

_FEW = 64

_PAUSE = 4.0
"""Mean gaps after which nothing is expected any more."""


@dataclass(slots=True, eq=False)
class Flow:
    """Watches work come, in seconds of the processors that need fewest units for it."""

    _state: State
    _last_s: float = -math.inf
    _gaps: int = 0
    _gap_s: float = 0.0
    _work_s: float = 0.0
    """Mean of what comes at one moment."""
    _now_s: float = 0.0
    """What came at the last moment so far."""
    _known: dict[Lane, tuple[float, float]] = field(default_factory=dict)

    def note(self, lane: Lane) -> None:
        """Take note of a request that begins to wait."""
        now, work_s = self._state.now, self._of(lane)[0]
        if now <= self._last_s:
            self._now_s += work_s
            return
        gap_s = now - self._last_s
        self._last_s = now
        if gap_s == math.inf or (self._gaps >= _FEWEST and gap_s > _PAUSE * self._gap_s):
            self._gaps, self._gap_s, self._work_s = 0, 0.0, self._now_s
        else:
            self._gaps += 1
            weight = max(_WEIGHT, 1 / self._gaps)
            self._gap_s += weight * (gap_s - self._gap_s)
            self._work_s += weight * (self._now_s - self._work_s)
        self._now_s = work_s

    def forget_lanes(self) -> None:
        """Forget what is known of lanes: they are made anew."""
        self._known.clear()

    def beside_s(self, lane: Lane) -> tuple[float, float]:
        """Return what there is to do in all, and how many units like its own a lane could use.

        The first in seconds: what waits, and what still runs.
        """
        state = self._state
        work_s = sum(len(each) * self._of(each)[0] for each in state.lanes)
        for execution in state.running.values():
            units = len(state.units_of[execution.processor])
            work_s += units * max(0.0, execution.expected_end_s - state.now)
        return work_s, self._of(lane)[1]

    def comes_s(self, seconds: float) -> float:
        """Return how much work is expected to come within so many seconds."""
        now, gap_s = self._state.now, self._gap_s
        if self._gaps < _FEWEST or now - self._last_s > _PAUSE * gap_s:
            return 0.0
        first_s = max(self._last_s + gap_s, now)
        return max(0.0, now + seconds - first_s) * self._work_s / gap_s

    def _of(self, lane: Lane) -> tuple[float, float]:
        """Return the seconds of a request where it needs least, times units, and such units."""
        known = self._known.get(lane)
        if known is None:
            if len(self._known) > _FEW + 2 * len(self._state.lanes):
                self._known.clear()  # most are of lanes that are gone
            units_of = self._state.units_of
            per_unit: dict[str, float] = {}
            for name, seconds in lane.seconds.items():
                units = units_of.get(name, ())
                for unit in units:
                    per_unit[unit] = min(per_unit.get(unit, math.inf), seconds * len(units))
            least_s = min(per_unit.values(), default=0.0)
            like = math.fsum(least_s / each for each in per_unit.values() if each > 0)
            known = self._known[lane] = least_s, max(like, 1.0)
        return known
