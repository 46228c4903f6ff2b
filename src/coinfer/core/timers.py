"""Timers: the moments at which the dispatcher must look again even if nothing else happens."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection
from dataclasses import dataclass, field

from coinfer.core.request import Request

__all__ = ["Timers"]


@dataclass(slots=True, eq=False)
class Timers:
    """Deadlines of droppable requests, the policy's wake-up and the watchdog's next look.

    Only one timer is armed at a time, the earliest; a driver needs no timer queue of its own.

    Attributes:
        policy_s: When the policy wants to decide again; infinite: it does not.
        watchdog_s: When some execution may have to be given up.
        probe_s: When a processor that was set aside is to be tried again.
        preempt_s: When an urgent request may have to be started on an express processor.
        next_s: The earliest moment to look again. It may come too early, never too late.
        armed_s: What the driver's timer is set to.
        deadlines: (deadline, id) of droppable requests, as a heap; some no longer wait.
    """

    policy_s: float = math.inf
    watchdog_s: float = math.inf
    probe_s: float = math.inf
    preempt_s: float = math.inf
    next_s: float = math.inf
    armed_s: float = math.inf
    deadlines: list[tuple[float, int]] = field(default_factory=list)

    def add_deadline(self, request: Request, waiting: Collection[int]) -> None:
        """Remember to look at a request's deadline."""
        heap = self.deadlines
        heapq.heappush(heap, (request.deadline_s, request.id))
        if len(heap) > 64 and len(heap) > 2 * len(waiting):
            self.deadlines = [entry for entry in heap if entry[1] in waiting]
            heapq.heapify(self.deadlines)

    def wake(self, at_s: float) -> None:
        """Let the policy decide again at a moment, if it did not ask for an earlier one."""
        self.policy_s = min(self.policy_s, at_s)
        self.next_s = min(self.next_s, at_s)

    def watch(self, at_s: float) -> None:
        """Let the watchdog look at a moment, if it does not look earlier."""
        self.watchdog_s = min(self.watchdog_s, at_s)
        self.next_s = min(self.next_s, at_s)

    def probe(self, at_s: float) -> None:
        """Let the next processor be tried again at a moment, and not before."""
        self.probe_s = at_s
        self.next_s = min(self.next_s, at_s)

    def preempt(self, at_s: float) -> None:
        """Let urgent requests be looked at again at a moment, and not before."""
        self.preempt_s = at_s
        self.next_s = min(self.next_s, at_s)

    def look_at_deadlines(self, waiting: Collection[int]) -> None:
        """Let the next moment be no later than the earliest deadline of a waiting request.

        A request that no longer waits has started or is answered: its deadline needs no timer.
        """
        deadlines = self.deadlines
        while deadlines and deadlines[0][1] not in waiting:
            heapq.heappop(deadlines)
        if deadlines and deadlines[0][0] < self.next_s:
            self.next_s = deadlines[0][0]

    def pop_expired(self, now: float) -> list[int]:
        """Return the ids of the requests whose deadline has passed; they may be long answered."""
        heap = self.deadlines
        expired = []
        while heap and heap[0][0] <= now:
            expired.append(heapq.heappop(heap)[1])
        return expired

    @property
    def has_fired(self) -> bool:
        """Whether the armed timer went off, and is not armed again."""
        return self.armed_s == math.inf

    def fired(self) -> None:
        """Note that the armed timer went off."""
        self.armed_s = math.inf

    def settle(self, waiting: Collection[int]) -> None:
        """Find the next moment anew."""
        self.next_s = min(self.policy_s, self.watchdog_s, self.probe_s, self.preempt_s)
        self.look_at_deadlines(waiting)

    def arm(self) -> float:
        """Note that the driver's timer is set to the next moment, and return it."""
        self.armed_s = self.next_s
        return self.next_s
