"""Submission: what passes between the moment that a request is due and its start. Pure data.

Knows neither how it was measured (`experiments`) nor who reads it (`sim`).
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Submission"]


class Submission(NamedTuple):
    """Seconds that requests need to come to where it is decided what starts.

    For all of this time a thread of normal priority computes on a core. Whoever ran there stops.

    Attributes:
        first_s: Of a request that is due while nothing else is submitted: the caller's thread wakes
            up and submits it, and a worker that rests is woken.
        next_s: Of each further one that the same thread submits at that moment.
        factors: How many times as long each of several moments took, as measured. One counts for
            all that is submitted at a moment: what makes the first one slow does so with the
            others. Empty: all take equally long.

    >>> Submission(first_s=0.5, next_s=0.25).entry_s(due_s=1.0, before_s=0.0)
    1.5
    >>> Submission(first_s=0.5, next_s=0.25).entry_s(due_s=1.0, before_s=1.5, factor=2.0)
    2.0
    """

    first_s: float = 0.0
    next_s: float = 0.0
    factors: tuple[float, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether it takes any time."""
        return self.first_s > 0.0 or self.next_s > 0.0

    def entry_s(self, due_s: float, before_s: float, factor: float = 1.0) -> float:
        """Return when a request is there that was due then, the one before it being there before.

        >>> Submission().entry_s(due_s=1.0, before_s=1.0)
        1.0
        """
        return max(due_s + factor * self.first_s, before_s + factor * self.next_s)
