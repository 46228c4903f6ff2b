"""Seen requests: the last requests that came, and how many of each kind. Knows no clock."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from coinfer.core.request import OnLate, Request

__all__ = ["Kind", "Promise", "SeenRequests", "kind_of", "promise_of"]

_DIGITS = 4
"""Of a deadline: it is the difference of two moments, which differs in the last ones."""


Kind = tuple[str, int, bool]
"""Model, priority, and whether it has a deadline."""


class Promise(NamedTuple):
    """What a request is promised.

    Attributes:
        deadline_s: Seconds from when it was due; infinite: it has no deadline.
        priority: Larger is more urgent.
        on_late: What to do if the deadline passes before the start.
    """

    deadline_s: float
    priority: int
    on_late: OnLate


def promise_of(request: Request) -> Promise:
    """Return what a request is promised.

    >>> promise_of(Request(id=0, model="m", arrival_s=0.3, deadline_s=0.333)).deadline_s
    0.033
    """
    deadline_s = request.deadline_s
    if deadline_s < math.inf:
        deadline_s = float(f"{max(deadline_s - request.arrival_s, 1e-9):.{_DIGITS}g}")
    return Promise(deadline_s, request.priority, request.on_late)


def kind_of(request: Request) -> Kind:
    """Return what requests are counted by."""
    return request[1], request[4], request[3] < math.inf


class SeenRequests:
    """The last requests that came. Any thread may note one; no lock is held for that.

    Args:
        most: How many are kept; older ones are forgotten.

    Attributes:
        counts: Requests since the start, by model, priority and whether they have a deadline. Of
            two that are noted at the same moment one may not be counted.

    >>> seen = SeenRequests(most=2)
    >>> for number in range(3):
    ...     seen.note(Request(id=number, model="m", arrival_s=float(number)))
    >>> [request.id for request in seen.since(0.0)], seen.counts
    ([1, 2], {('m', 0, False): 3})
    """

    __slots__ = ("_requests", "counts")

    def __init__(self, most: int) -> None:
        self._requests: deque[Request] = deque(maxlen=most)
        self.counts: dict[Kind, int] = {}

    def note(self, request: Request) -> None:
        """Note a request that comes."""
        self._requests.append(request)
        kind = (request[1], request[4], request[3] < math.inf)  # a call would cost as much again
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def since(self, moment_s: float) -> list[Request]:
        """Return those that are kept and were due at a moment or later."""
        return [request for request in self._requests.copy() if request.arrival_s >= moment_s]
