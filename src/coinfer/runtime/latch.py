"""Latch: something that happens once, and may be waited for. Holds no lock.

A signal handler may raise in the main thread after every call, also inside of
`threading.Event.wait`: the lock of its condition is then held for ever, and whoever sets the event
hangs (https://bugs.python.org/issue29988). Here a waiter shares nothing but a queue of its own.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from queue import Empty, SimpleQueue

__all__ = ["Latch"]


class Latch:
    """An event that is set once and stays set.

    >>> latch = Latch()
    >>> latch.wait(0.0), latch.set(), latch.wait()
    (False, None, True)
    """

    __slots__ = ("_waiters", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._waiters: list[SimpleQueue[None]] = []

    def set(self) -> None:
        """Let everybody go on who waits, now or later; again is fine."""
        self.is_set = True
        for waiter in self._waiters.copy():
            waiter.put(None)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is set; False if it was not in time."""
        if self.is_set:
            return True
        waiter: SimpleQueue[None] = SimpleQueue()
        try:
            self._waiters.append(waiter)
            if not self.is_set:  # else it may have been set without seeing the waiter
                most_s = None if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX)
                with suppress(Empty):
                    waiter.get(timeout=most_s)
        finally:
            with suppress(ValueError):
                self._waiters.remove(waiter)
        return self.is_set
