"""Request times: when the engine got, started and answered the last requests."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

__all__ = ["RequestTimes", "Times"]

_MOST = 1 << 14
"""Who waits for an answer takes its times at once; only of those that left they stay."""


class Times(NamedTuple):
    """Moments of one request in the engine's time.

    Attributes:
        arrived_s: When the engine got it.
        started_s: When it began to run; None: it never did.
        answered_s: When the engine had its answer, or gave it up.
    """

    arrived_s: float
    started_s: float | None
    answered_s: float


class RequestTimes:
    """Keeps the times of the last answered requests until somebody takes them.

    The owner of the core adds, any thread takes.

    >>> times = RequestTimes()
    >>> times.add(7, Times(1.0, 2.0, 4.0))
    >>> times.take(7), times.take(7)
    (Times(arrived_s=1.0, started_s=2.0, answered_s=4.0), None)
    """

    def __init__(self) -> None:
        self._found: dict[int, Times] = {}

    def add(self, number: int, times: Times) -> None:
        """Keep the times of a request; the oldest are forgotten if there are many."""
        found = self._found
        found[number] = times
        if len(found) > _MOST:
            with suppress(RuntimeError, StopIteration):  # another thread took one meanwhile
                found.pop(next(iter(found)), None)

    def take(self, number: int) -> Times | None:
        """Return the times of a request and forget them; None: they are not there."""
        return self._found.pop(number, None)
