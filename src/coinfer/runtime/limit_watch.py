"""Limit watch: sees that the container's limit of memory becomes too low for what is loaded.

Only where models have no budget: with one, the memory watch follows the limit. Such an engine does
nothing about memory until then. The timer's thread calls it: no request waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from coinfer.machine.memories import SHARE
from coinfer.runtime import clock
from coinfer.runtime.process_memory import process_memory

__all__ = ["PERIOD_S", "LimitWatch"]

PERIOD_S = 1.0
"""How often it looks."""


class LimitWatch:
    """Looks how many bytes the process may use, until that is too little once.

    Args:
        limit: Says how many bytes this process may use now; None: nobody limits it.
        taken: Says how many bytes all that is loaded takes.
        begin: Gives models a budget; gets the limit that there was at the start, and the bytes that
            the process held beside what is loaded. False if it cannot now: it is called again.
        rest: Bytes that it holds beside that, at least.
    """

    def __init__(
        self,
        limit: Callable[[], int | None],
        taken: Callable[[], int],
        begin: Callable[[int | None, int], bool],
        rest: int = 0,
    ) -> None:
        self._limit, self._taken, self._begin = limit, taken, begin
        self._first = limit()
        self._rest = self._least_rest = rest
        self._look_s = clock.now() + PERIOD_S

    def due_in_s(self) -> float:
        """Return the seconds until it wants to be called; 0 if it does now."""
        return max(0.0, self._look_s - clock.now())

    def look(self) -> None:
        """Have models get a budget if the limit is lower than it was, and too low for them."""
        self._look_s = clock.now() + PERIOD_S
        limit, first, held = self._limit(), self._first, process_memory()
        taken = self._taken()
        if limit is None or (first is not None and limit >= first):
            # Not once it is lower: the system takes pages away then.
            self._rest = max(self._least_rest, 0 if held is None else held.total - taken)
        elif taken > min(SHARE * limit, limit - self._rest) and self._begin(first, self._rest):
            self._look_s = math.inf
