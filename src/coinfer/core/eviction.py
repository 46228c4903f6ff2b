"""Eviction: which places make room for another one. Changes nothing.

What is evicted first is what it costs least to be without: seconds to load it again, times how
often it is asked for, by the bytes that it gives back.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence

from coinfer.core.place import Place

__all__ = ["Eviction", "room_from"]


class Eviction(enum.Enum):
    """What is evicted first."""

    COST = "cost"
    """What it is cheapest to be without."""
    LRU = "lru"
    """What was used longest ago. Requests then go in their order: for comparisons."""


def room_from(
    groups: Iterable[Sequence[Place]], missing: float, worth: Callable[[Place], float]
) -> list[Place] | None:
    """Choose places that make enough room together; None if all of them do not.

    Args:
        groups: Places that may go; those of later groups only if those before are not enough.
        missing: Bytes of room to be made.
        worth: What it costs to be without a place, by the byte.
    """
    chosen: list[Place] = []
    left = missing
    for group in groups:
        for place in sorted(group, key=worth):
            if left <= 0:
                break
            chosen.append(place)
            left -= place.size
    if left > 0:
        return None
    for place in reversed(chosen):  # the dearest first: a larger one may have made it superfluous
        if left + place.size <= 0:
            chosen.remove(place)
            left += place.size
    return chosen
