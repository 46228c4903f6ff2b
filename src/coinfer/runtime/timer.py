"""Timer: calls back at one moment that may be moved, and when it is rung. Knows no event."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Protocol

from coinfer.runtime import clock
from coinfer.runtime.latch import Latch

__all__ = ["Timer", "Watch"]

_STALLED_S = 0.5
"""Whoever wakes up so much later than asked was kept from it, as a process that was stopped is."""

_GRACE_S = 1.0
"""After that, so long for what runs to come to its end before anybody asks why it took so long."""


class Watch(Protocol):
    """What the timer's thread is to look at now and then."""

    def due_in_s(self) -> float:
        """Return the seconds until it wants to be called; 0 if it does now."""

    def look(self) -> None:
        """Look at it."""


class Timer:
    """One thread that sleeps until the armed moment; arming again replaces the moment.

    It holds no lock, so an exception in a thread that arms, rings or stops it leaves it whole.

    Args:
        fire: Called when the moment has come.
        look: Called after each ring, and once more before the thread ends.
        failed: Gets what these raise: the thread then ends, since nobody knows what was done.

    Attributes:
        is_stopped: Whether it does nothing any more.
        watches: Looked at when they are due, from the timer's thread; set before the start.
    """

    def __init__(
        self,
        fire: Callable[[], None],
        look: Callable[[], None] = lambda: None,
        failed: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._fire = fire
        self._look = look
        self._failed = failed
        # A moment is a list of its own each time: the one that was fired is told by its identity.
        self._armed = self._fired = [math.inf]
        self.is_stopped = False
        self.watches: list[Watch] = []
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._ended = Latch()
        self._thread = threading.Thread(target=self._run, name="coinfer-timer", daemon=True)

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: the system has no thread left.
        """
        self._thread.start()

    def arm(self, at_s: float) -> None:
        """Fire at `at_s`, in the engine's time, instead of at the moment armed before."""
        before, self._armed = self._armed, [at_s]
        if at_s < before[0] or before is self._fired:
            self._bell.put(None)

    def ring(self) -> None:
        """Have `look` called soon, from the timer's thread."""
        if self._bell.empty():  # else it is called after this moment anyway
            self._bell.put(None)

    def stop(self, timeout_s: float | None = None) -> bool:
        """End the thread and wait for it, unless called from it; False if it still runs."""
        self.is_stopped = True
        self._bell.put(None)
        if self._thread.ident is None or self._thread is threading.current_thread():
            return True
        return self._ended.wait(timeout_s)

    def _run(self) -> None:
        try:
            while not self.is_stopped:
                armed = self._armed
                left_s = math.inf if armed is self._fired else armed[0] - clock.now()
                due_s = [(each.due_in_s(), number) for number, each in enumerate(self.watches)]
                watch_s, first = min(due_s, default=(math.inf, 0))
                if left_s <= 0:
                    self._fired = armed
                    self._fire()
                elif watch_s <= 0:
                    self.watches[first].look()
                else:
                    self._wait(min(left_s, watch_s))
        except BaseException as error:  # noqa: BLE001 - whatever it is, somebody waits for answers
            self.is_stopped = True  # first: whoever posts from now on looks himself
            self._failed(error)
        finally:
            self._ended.set()
            self._look_at_last()

    def _look_at_last(self) -> None:
        try:
            self._look()
        except BaseException as error:  # noqa: BLE001 - as above
            self._failed(error)

    def _wait(self, most_s: float) -> None:
        """Wait for the bell, for so long at most; longer if the process stood still meanwhile."""
        until_s = clock.now() + most_s
        if self._is_rung(most_s):
            self._look()
        patience_s = _GRACE_S
        while clock.now() > until_s + _STALLED_S and patience_s > 0 and not self.is_stopped:
            began_s = clock.now()
            if self._is_rung(patience_s):
                self._look()
            patience_s -= max(clock.now() - began_s, 1e-3)

    def _is_rung(self, most_s: float) -> bool:
        """Wait for the bell; False if it was not rung in time."""
        try:
            self._bell.get(
                timeout=None if most_s == math.inf else min(most_s, threading.TIMEOUT_MAX)
            )
        except Empty:
            return False
        return True
