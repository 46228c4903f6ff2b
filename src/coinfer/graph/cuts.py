"""Choose where to cut a sequence of operators further, so that few bytes cross the cuts.

Knows the cost of each item and the bytes that cross between two items; knows no graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

__all__ = ["balanced_cuts", "limiting_cuts"]

_BYTES_OF_A_CUT: Final = 256 * 1024
"""What one more cut costs beside the bytes that cross it: handing over one execution takes some
tens of microseconds, in which a core moves about as many bytes."""

_MOST, _LEAST = 1.4, 0.6
"""A balanced part may cost this many times the mean, if fewer bytes cross for it."""


def limiting_cuts(
    costs: Sequence[Sequence[float]], crossing: Sequence[float], limits: Sequence[float]
) -> tuple[int, ...]:
    """Cut a sequence so that no part costs more than its limits, where few bytes cross.

    A single item above a limit becomes a part of its own.

    Args:
        costs: Rows of costs, one row per limit, all of the sequence's length.
        crossing: Bytes that cross before each item; that before the first is not read.
        limits: What the sum over a part may be, in the row's unit.

    Returns:
        Positions to cut before, ascending, chosen to make the bytes that cross the least, each
        cut counting as another 256 KiB.

    >>> limiting_cuts([[4.0, 4.0, 4.0, 4.0]], [0, 9, 5, 9], [8.0])
    (2,)
    """
    count = len(crossing)
    sums = [list(accumulate(row, initial=0.0)) for row in costs]
    best, previous = [math.inf] * count + [math.inf], [0] * (count + 1)
    best[0] = 0.0
    for end in range(1, count + 1):
        for start in range(end - 1, -1, -1):
            if start < end - 1 and any(
                row[end] - row[start] > limit * (1 + 1e-9)
                for row, limit in zip(sums, limits, strict=True)
            ):
                break  # a longer part costs no less
            cost = best[start] + (crossing[start] + _BYTES_OF_A_CUT if start else 0.0)
            if cost < best[end]:
                best[end], previous[end] = cost, start
    cuts = []
    while count > 0:
        count = previous[count]
        cuts.append(count)
    return tuple(reversed(cuts[:-1]))


def balanced_cuts(
    costs: Sequence[float], crossing: Sequence[float], pieces: int
) -> tuple[int, ...]:
    """Cut a sequence into parts of about the same cost, where few bytes cross.

    Parts cost 0.6 to 1.4 times the mean. Where single items are so dear that this cannot be, no
    part costs more than it must.

    Args:
        costs: Cost of each item.
        crossing: Bytes that cross before each item; that before the first is not read.
        pieces: Number of parts; fewer if there are fewer items.

    >>> balanced_cuts([1.0, 1.0, 1.0, 1.0], [0, 9, 9, 9], 2)
    (2,)
    """
    pieces = min(pieces, len(costs))
    if pieces <= 1:
        return ()
    mean = sum(costs) / pieces
    cuts = _cheapest(costs, crossing, pieces, _LEAST * mean, _MOST * mean)
    if cuts is None:
        most = max(_least_maximum(costs, pieces), _MOST * mean) * (1 + 1e-9)
        cuts = _cheapest(costs, crossing, pieces, 0.0, most)
    assert cuts is not None, "a limit that can be kept was not"
    return cuts


def _cheapest(
    costs: Sequence[float], crossing: Sequence[float], pieces: int, least: float, most: float
) -> tuple[int, ...] | None:
    """The cuts into so many parts, each within these bounds, that the fewest bytes cross.

    A part twice as dear as the mean counts as much as the bytes that cross on average, so that of
    two places of equal bytes the more even one is taken.
    """
    count = len(costs)
    sums = list(accumulate(costs, initial=0.0))
    mean, typical = sums[-1] / pieces, max(1.0, sum(crossing) / count)
    best = [0.0] + [math.inf] * count
    choices: list[list[int]] = []
    for _ in range(pieces):
        reached, chosen = [math.inf] * (count + 1), [0] * (count + 1)
        for end in range(1, count + 1):
            for start in range(end - 1, -1, -1):
                part = sums[end] - sums[start]
                if part > most:
                    break
                cost = best[start] + (crossing[start] if start else 0.0)
                cost += typical * (part / mean - 1) ** 2 if mean else 0.0
                if cost < reached[end] and part >= least:
                    reached[end], chosen[end] = cost, start
        best = reached
        choices.append(chosen)
    if math.isinf(best[count]):
        return None
    cuts = []
    end = count
    for chosen in reversed(choices):
        end = chosen[end]
        cuts.append(end)
    return tuple(reversed(cuts[:-1]))


def _least_maximum(costs: Sequence[float], pieces: int) -> float:
    """The least that the dearest of so many parts can cost, to one part in a billion."""
    low, high = max(costs), sum(costs)
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        if _parts_needed(costs, middle) <= pieces:
            high = middle
        else:
            low = middle
    return high


def _parts_needed(costs: Sequence[float], limit: float) -> int:
    parts, filled = 1, 0.0
    for cost in costs:
        if filled + cost > limit and filled > 0:
            parts, filled = parts + 1, 0.0
        filled += cost
    return parts
