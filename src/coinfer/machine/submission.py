"""Submission: what passes between the moment that a request is due and its start. Pure data.

Knows neither how it was measured (`experiments`) nor who reads it (`sim`).
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Submission"]


class Submission(NamedTuple):
    """Seconds that requests need to come to where it is decided what starts.

    Attributes:
        first_s: Of a request that is due while nothing else is submitted: the caller's thread wakes
            up and submits it, and a worker that rests is woken.
        next_s: Of each further one that the same thread submits at that moment.

    >>> Submission(first_s=0.5, next_s=0.25).entry_s(due_s=1.0, before_s=0.0)
    1.5
    >>> Submission(first_s=0.5, next_s=0.25).entry_s(due_s=1.0, before_s=1.5)
    1.75
    """

    first_s: float = 0.0
    next_s: float = 0.0

    def entry_s(self, due_s: float, before_s: float) -> float:
        """Return when a request is there that was due then, the one before it being there before.

        >>> Submission().entry_s(due_s=1.0, before_s=1.0)
        1.0
        """
        return max(due_s + self.first_s, before_s + self.next_s)
