"""Flow: whether the other processors have enough to do while one runs several requests at once.

A run of several saves work, but where nothing follows it can be what all wait for in the end: of 16
requests that come at once, eight cores are done sooner with two each than one of them with all. So
a run may last as long as the others have work: what waits beside it, what runs there, and what is
to come by the mean rate of before. What came at one moment counts as one event; where the next
event is overdue by several gaps, nothing is to come. Nor is anything expected for longer than it
has been coming: 24 requests within a millisecond say nothing of the next second.
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

_MANY = 1024
"""Gaps of which the long mean is; then what came in the first half of them is forgotten."""

_FEW = 64

_PAUSE = 32.0
"""Mean gaps after which nothing is expected any more. At random one in 55 is longer than four."""


@dataclass(slots=True, eq=False)
class Flow:
    """Watches work come, in seconds of the processors that need fewest units for it."""

    _state: State
    _last_s: float = -math.inf
    _since_s: float = -math.inf
    """When what comes now began to come."""
    _from_s: float = -math.inf
    """From when on gaps are counted."""
    _gaps: int = 0
    _gap_s: float = 0.0
    _work_s: float = 0.0
    """Mean of what comes at one moment."""
    _now_s: float = 0.0
    """What came at the last moment so far."""
    _known: dict[Lane, tuple[float, float, int]] = field(default_factory=dict)
    _least_s: dict[str, float] = field(default_factory=dict)
    _served: tuple[str, ...] = ()

    def note(self, lane: Lane) -> None:
        """Take note of a request that comes."""
        now, work_s = self._state.now, (self._known.get(lane) or self._of(lane))[0]
        if now <= self._last_s:
            self._now_s += work_s
            return
        gap_s = now - self._last_s
        self._last_s = now
        if gap_s == math.inf or (self._gaps >= _FEWEST and gap_s > _PAUSE * self._gap_s):
            self._gaps, self._gap_s, self._work_s = 0, 0.0, self._now_s
            self._since_s = self._from_s = now
        else:
            self._gaps += 1
            if self._gaps > _MANY:
                self._gaps //= 2
                self._from_s = (self._from_s + now) / 2
            weight = max(_WEIGHT, 1 / self._gaps)
            self._gap_s += weight * (gap_s - self._gap_s)
            self._work_s += weight * (self._now_s - self._work_s)
        self._now_s = work_s

    def forget_lanes(self) -> None:
        """Forget what is known of lanes: they are made anew."""
        self._known.clear()

    def beside_s(self, lane: Lane) -> tuple[float, float, float]:
        """Return what there is to do in all, what a request of a lane is of that, and who could.

        The first two in seconds of the units that need least: what waits, and what still runs,
        where the lane could run, too. What needs other units gains nothing by runs that are shared
        there. The last is how many such units there are for the lane, slower ones by how fast they
        are.
        """
        state = self._state
        served = tuple(state.in_service)
        if served != self._served:
            self._served = served
            self._known.clear()
        least_s, like, bits = self._of(lane)
        work_s, known = 0.0, self._known
        for each in state.lanes:
            each_s, _, others = known.get(each) or self._of(each)
            if others & bits:
                work_s += len(each) * each_s
        for execution in state.running.values():
            at = state.bits_of[execution.processor]  # none of an express one: it stands on others
            if at and not at & bits:
                continue
            share = max(0.0, execution.expected_end_s - state.now) / max(execution.expected_s, 1e-9)
            run_s = [self._least_s.get(request.model, 0.0) for request in execution.requests]
            work_s += min(share, 1.0) * sum(run_s)
        return work_s, least_s, like

    def comes_s(self, seconds: float) -> float:
        """Return how much work is expected to come within so many seconds.

        None if it has been coming for less than that. By the mean gap of the last ones, or of
        many, whichever is longer: a burst in what comes steadily is soon over.
        """
        now, gap_s = self._state.now, self._gap_s
        if self._gaps < _FEWEST or now - self._last_s > _PAUSE * gap_s:
            return 0.0
        if now - self._since_s < seconds:
            return 0.0
        gap_s = max(gap_s, (self._last_s - self._from_s) / self._gaps)
        first_s = max(self._last_s + gap_s, now)
        return max(0.0, now + seconds - first_s) * self._work_s / gap_s

    def load(self, lane: Lane) -> float:
        """Return how much comes of what the units can do that could serve a lane, run alone.

        From 1 on they cannot serve it but in runs of several. 0 if too little came to tell.
        """
        now, gap_s = self._state.now, self._gap_s
        if self._gaps < _FEWEST or now - self._last_s > _PAUSE * gap_s:
            return 0.0
        return self._work_s / (gap_s * self._of(lane)[1])

    def _of(self, lane: Lane) -> tuple[float, float, int]:
        """Return what a request takes where it needs least, and where.

        That is seconds times units; how many such units there are; and all that can serve it, a bit
        each.
        """
        known = self._known.get(lane)
        if known is None:
            most = _FEW + 2 * max(len(self._state.lanes), len(self._state.variants))
            if len(self._known) > most:
                self._known.clear()  # most are of lanes that are gone
            units_of, served = self._state.units_of, self._state.in_service
            bits = 0
            per_unit: dict[str, float] = {}
            for name, seconds in lane.seconds.items():
                if name not in served or name in lane.excluded:
                    continue
                units = units_of[name]
                bits |= self._state.bits_of[name]
                for unit in units:
                    per_unit[unit] = min(per_unit.get(unit, math.inf), seconds * len(units))
            least_s = min(per_unit.values(), default=0.0)
            like = math.fsum(least_s / each for each in per_unit.values() if each > 0)
            known = self._known[lane] = least_s, max(like, 1.0), bits
            self._least_s[lane.model] = least_s
        return known
