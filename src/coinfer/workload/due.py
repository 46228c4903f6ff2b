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
        index: How many requests of this model that process asked for before. Of a request that
            comes after another one it follows from the index of that one, and is that one if only
            one comes after it. Unique among the requests of a model.
        model: Which model.
        frame_s: The moment from which latency and deadline count, if that is not `time_s`: when
            the first request of its cascade was due.
    """

    time_s: float
    stream: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a due
    model: str
    frame_s: float | None = None

    @property
    def due_s(self) -> float:
        """The moment from which latency and deadline count."""
        return self.time_s if self.frame_s is None else self.frame_s
