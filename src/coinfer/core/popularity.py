"""Popularity: how large a share of the requests each model gets. Knows no clock.

Each arrival weighs a little more than the one before it, so that what counts are the last few
hundred, however fast they come.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Popularity"]

_GROWTH = 1.005
"""Of the weights: after about 200 arrivals more, one counts for a third."""

_MOST = 1e200


class Popularity:
    """Counts arrivals.

    >>> popularity = Popularity()
    >>> for model in "aab":
    ...     popularity.note(model)
    >>> popularity.of(["a"]) > popularity.of(["b"]) > popularity.of(["c"])
    True
    """

    __slots__ = ("_weight", "_weights")

    def __init__(self) -> None:
        self._weight = 1.0
        self._weights: dict[str, float] = {}

    def note(self, model: str) -> None:
        """Take note of a request that came just now."""
        self._weight *= _GROWTH
        self._weights[model] = self._weights.get(model, 0.0) + self._weight
        if self._weight > _MOST:
            self._weights = {name: each / _MOST for name, each in self._weights.items()}
            self._weight /= _MOST

    def of(self, models: Iterable[str]) -> float:
        """Return how popular models are together, to be compared with others at this moment."""
        return sum(self._weights.get(model, 0.0) for model in models) / self._weight
