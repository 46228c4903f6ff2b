"""Popularity: how large a share of the requests needs each variant. Knows no clock.

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

    def note(self, name: str) -> None:
        """Take note of a request that came just now: by the variant that should serve it."""
        self._weight *= _GROWTH
        self._weights[name] = self._weights.get(name, 0.0) + self._weight
        if self._weight > _MOST:
            self._weights = {known: each / _MOST for known, each in self._weights.items()}
            self._weight /= _MOST

    def add(self, name: str, count: int = 1, instead_of: str = "") -> None:
        """Take note that a variant served so many requests that have been noted already.

        Args:
            name: The variant.
            count: How many.
            instead_of: What they count for no longer, since they do not need it; empty: nothing.
        """
        weight = self._weight * count
        self._weights[name] = self._weights.get(name, 0.0) + weight
        if instead_of:
            self._weights[instead_of] = max(0.0, self._weights.get(instead_of, 0.0) - weight)

    def of(self, names: Iterable[str]) -> float:
        """Return how popular variants are together, to be compared with others at this moment."""
        return sum(self._weights.get(name, 0.0) for name in names) / self._weight
