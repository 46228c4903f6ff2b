"""Timer: calls back at one moment that may be moved. Knows nothing of events."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from coinfer.runtime import clock

__all__ = ["Timer"]


class Timer:
    """One thread that sleeps until the armed moment; arming again replaces the moment."""

    def __init__(self, fire: Callable[[], None]) -> None:
        self._fire = fire
        self._at_s = math.inf
        self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="coinfer-timer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def arm(self, at_s: float) -> None:
        """Fire at `at_s`, in the engine's time, instead of at the moment armed before."""
        with self._changed:
            sooner = at_s < self._at_s
            self._at_s = at_s
            if sooner:
                self._changed.notify()

    def stop(self) -> None:
        """End the thread and wait for it, unless called from it."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while self._sleep():
            self._fire()

    def _sleep(self) -> bool:
        """Wait for the moment; False means stopped."""
        with self._changed:
            while not self._stopped:
                left_s = self._at_s - clock.now()
                if left_s <= 0:
                    self._at_s = math.inf
                    return True
                self._changed.wait(min(left_s, threading.TIMEOUT_MAX))
            return False
