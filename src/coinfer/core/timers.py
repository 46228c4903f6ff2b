"""Timers: the moments at which the dispatcher must look again even if nothing else happens."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection

from coinfer.core.request import Request

__all__ = ["Timers"]


class Timers:
    """Deadlines of droppable requests, the policy's wake-up and the watchdog's next look.

    Only one timer is armed at a time, the earliest; a driver needs no timer queue of its own.
    """

    __slots__ = ("_armed_s", "_deadlines", "policy_s", "watchdog_s")

    def __init__(self) -> None:
        self.policy_s = math.inf
        self.watchdog_s = math.inf
        self._deadlines: list[tuple[float, int]] = []
        self._armed_s = math.inf

    def add_deadline(self, request: Request, waiting: Collection[int]) -> None:
        """Remember to look at a request's deadline."""
        heap = self._deadlines
        heapq.heappush(heap, (request.deadline_s, request.id))
        if len(heap) > 64 and len(heap) > 2 * len(waiting):
            self._deadlines = [entry for entry in heap if entry[1] in waiting]
            heapq.heapify(self._deadlines)

    def pop_expired(self, now: float) -> list[int]:
        """Return the ids of the requests whose deadline has passed; they may be long answered."""
        heap = self._deadlines
        expired = []
        while heap and heap[0][0] <= now:
            expired.append(heapq.heappop(heap)[1])
        return expired

    def fired(self, now: float) -> None:
        """Note that the armed timer went off."""
        self._armed_s = math.inf
        if self.policy_s <= now:
            self.policy_s = math.inf

    def to_arm(self, waiting: Collection[int]) -> float | None:
        """Return the moment to arm the timer for, or None if it is armed early enough.

        A request that no longer waits has started or is answered: its deadline needs no timer.
        """
        deadlines = self._deadlines
        while deadlines and deadlines[0][1] not in waiting:
            heapq.heappop(deadlines)
        wanted = self.policy_s if self.policy_s < self.watchdog_s else self.watchdog_s
        if deadlines and deadlines[0][0] < wanted:
            wanted = deadlines[0][0]
        if wanted >= self._armed_s:
            return None
        self._armed_s = wanted
        return wanted
