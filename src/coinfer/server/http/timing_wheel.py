"""TimingWheel: looks at many things, each after a time of its own, with one timer for all."""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from typing import Protocol

__all__ = ["TimingWheel", "Watched"]

_TICK_S = 0.002

_LATE_S = 0.001
"""Loops count in milliseconds: a timer may ring a part of one too early."""


class Watched(Protocol):
    """What is looked at.

    Attributes:
        slot: The wheel's own note of when.
    """

    slot: int

    def look(self) -> float | None:
        """Do what is due; return the seconds until the next look, or None."""
        ...


class TimingWheel:
    """Looks at what was added once its time is over, at one per iteration of the loop.

    So what comes meanwhile is read between two looks, however many are due together.

    Args:
        loop: Of which it is a part.
        tick_s: What is due within so many seconds has one timer. Looks are late by as much.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tick_s: float = _TICK_S) -> None:
        self._loop = loop
        self._tick_s = tick_s
        self._slots: dict[int, set[Watched]] = {}
        self._order: list[int] = []  # a heap
        self._next: asyncio.Handle | None = None

    def add(self, watched: Watched, after_s: float) -> float:
        """Look at it after so many seconds, once. It is in no slot. Returns the loop's time."""
        now_s = self._loop.time()
        number = int((now_s + after_s) / self._tick_s) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = set()
            heappush(self._order, number)
            if self._order[0] == number:
                self._wait()
        slot.add(watched)
        watched.slot = number
        return now_s

    def discard(self, watched: Watched) -> None:
        """Do not look at it any more; fine if it was not to be looked at."""
        slot = self._slots.get(watched.slot)
        if slot is not None:
            slot.discard(watched)

    def _wait(self) -> None:
        """Turn on once the next slot is due."""
        if self._next is not None:
            self._next.cancel()
        left_s = self._order[0] * self._tick_s - self._loop.time()
        self._next = self._loop.call_later(max(left_s, 0.0) + _LATE_S, self._turn)

    def _turn(self) -> None:
        """Look at one that is due; at the next one in the loop's next iteration."""
        order, slots = self._order, self._slots
        now_s = self._loop.time()
        while order and order[0] * self._tick_s <= now_s:
            slot = slots[order[0]]
            if slot:
                watched = slot.pop()
                self._next = self._loop.call_soon(self._turn)
                again_s = watched.look()
                if again_s is not None:
                    self.add(watched, again_s)
                return
            del slots[heappop(order)]
        self._next = None
        if order:
            self._wait()
