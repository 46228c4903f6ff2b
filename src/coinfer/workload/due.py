"""Due: one request that must be submitted at a moment. Knows neither its inputs nor its answer."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Due"]


class Due(NamedTuple):
    """One request that a load asks for.

    A named tuple because one is made per request, and because dues then order themselves by time.

    Attributes:
        time_s: The moment it must be submitted, in seconds from the start of the warm-up.
        stream: Which arrival process asks for it.
        index: How many requests of this model that process asked for before.
        model: Which model.
    """

    time_s: float
    stream: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a due
    model: str
