"""Rivals: the requests that wait beside one that is decided on, and would be late for it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TypeAlias

from coinfer.core.request import Request
from coinfer.core.view import View

__all__ = ["Rivals"]


_Rival: TypeAlias = tuple[int, float, float, Mapping[str, float], int]
"""Its id, its deadline, when it must start at the latest, its seconds, and its priority."""


class Rivals:
    """The first request of each lane, if it can be in time.

    A processor that only one of them can do with is left to it, if the request that is decided on
    is in time elsewhere: always if the other would be late (`n_late`), and if it would only wait
    (`n_held`), where that does not cost the first one much. Each is held against what is busy, not
    against the others. What was given a place is to be settled: it is no rival any more. Good for
    one decision.
    """

    __slots__ = ("_priority", "_processors", "_waiting", "now")

    def __init__(self, view: View) -> None:
        """Look at what waits."""
        self.now = now = view.now
        self._processors = view.processors
        self._waiting: list[_Rival] = []
        self._priority = 0
        for lane in view.lanes():
            request = lane.head
            due_s = request.deadline_s
            if due_s == math.inf:
                continue
            seconds = view.offered_s(lane)
            least_s = min(seconds.values(), default=math.inf)
            if now + least_s <= due_s and now + view.overtaking_s(lane) > due_s:
                self._waiting.append(
                    (request.id, due_s, due_s - least_s, seconds, request.priority)
                )

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self._waiting)

    def of(self, request: Request) -> Rivals | None:
        """Return the rivals of a request, which is settled by that; None if it has none.

        Those of a lower priority are none, and what is late in any case has none.
        """
        self.settle(request.id)
        if not self._waiting or request.deadline_s <= self.now:
            return None
        self._priority = request.priority
        return self

    def settle(self, request_id: int) -> None:
        """Take a request out."""
        self._waiting = [rival for rival in self._waiting if rival[0] != request_id]

    def n_late(self, free_at: Mapping[str, float], taken: Collection[str], until_s: float) -> int:
        """Count those that would be late if units were taken until some moment, and only then.

        Args:
            free_at: When each busy unit will be free; others are free.
            taken: The units that would be taken.
            until_s: Until when.
        """
        now, processors, late = self.now, self._processors, 0
        for _, due_s, last_s, seconds, priority in self._waiting:
            if until_s <= last_s or priority < self._priority:
                continue
            is_in_time = is_kept = False
            for name, service_s in seconds.items():
                units = processors[name].units
                if _free_s(units, free_at, now) + service_s > due_s:
                    continue
                is_in_time = True
                if until_s + service_s <= due_s or units.isdisjoint(taken):
                    is_kept = True
                    break
            late += is_in_time and not is_kept
        return late

    def n_held(self, free_at: Mapping[str, float], taken: Collection[str]) -> int:
        """Count those that can be in time on these units and nowhere else, and so wait for them.

        Args:
            free_at: When each busy unit will be free; others are free.
            taken: The units.
        """
        now, processors, held = self.now, self._processors, 0
        for _, due_s, _, seconds, priority in self._waiting:
            if priority < self._priority:
                continue
            is_in_time = False
            for name, service_s in seconds.items():
                units = processors[name].units
                if _free_s(units, free_at, now) + service_s > due_s:
                    continue
                if units.isdisjoint(taken):
                    break
                is_in_time = True
            else:
                held += is_in_time
        return held


def _free_s(units: Collection[str], free_at: Mapping[str, float], now: float) -> float:
    """Return when all of some units are free."""
    free_s = now
    for unit in units:
        unit_s = free_at.get(unit, now)
        if unit_s > free_s:
            free_s = unit_s
    return free_s
