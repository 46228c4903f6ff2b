"""Cut: label the operators of a graph at least cost by minimum cuts. Knows no operator.

With two labels it is one minimum cut and exact (Greig, Porteous and Seheult, 1989). With more, each
step offers one label to all operators at once and is a cut again; steps repeat until none helps
(expansion moves: Boykov, Veksler and Zabih, PAMI 23(11), 2001).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Change", "least_labels"]

_Prices = Sequence[Sequence[float | None]]


class Change(NamedTuple):
    """What it costs if two operators have different labels.

    Attributes:
        source: An operator.
        target: One that reads from it.
        costs: By the label of the first, then of the second; 0 where they are equal.
    """

    source: int
    target: int
    costs: tuple[tuple[float, ...], ...]


def least_labels(prices: _Prices, changes: Sequence[Change]) -> list[int]:
    """Choose one label for each operator.

    Args:
        prices: Per operator and label what it costs, None where it cannot have that label; each
            has at least one.
        changes: What different labels cost.

    >>> least_labels([[0, 9], [2, 1]], [Change(0, 1, ((0, 3), (3, 0)))])
    [0, 0]
    """
    if not prices:
        return []
    labels = [_first(row) for row in prices]
    improved, least = True, cost_of(prices, changes, labels)
    while improved:
        improved = False
        for label in range(len(prices[0])):
            found = _expanded(prices, changes, labels, label)
            cost = cost_of(prices, changes, found)
            if cost < least * (1 - 1e-9):
                labels, least, improved = found, cost, True
    return labels


def _first(row: Sequence[float | None]) -> int:
    return next(index for index, price in enumerate(row) if price is not None)


def cost_of(prices: _Prices, changes: Sequence[Change], labels: Sequence[int]) -> float:
    """Add up what a labelling costs; infinite where an operator cannot have its label."""
    own = [row[label] for row, label in zip(prices, labels, strict=True)]
    if None in own:
        return float("inf")
    between = (each.costs[labels[each.source]][labels[each.target]] for each in changes)
    return sum(price for price in own if price is not None) + sum(between)


def _expanded(
    prices: _Prices, changes: Sequence[Change], labels: Sequence[int], label: int
) -> list[int]:
    """Let each operator keep its label or take this one, whichever costs least together."""
    size = len(prices)
    keep, take = np.zeros(size), np.zeros(size)
    edges: dict[tuple[int, int], float] = {}
    for index, row in enumerate(prices):
        old, new = row[labels[index]], row[label]
        keep[index] = np.inf if old is None else old
        take[index] = np.inf if new is None else new
    for source, target, costs in changes:
        one, other = labels[source], labels[target]
        both_keep, first_takes = costs[one][other], costs[label][other]
        second_takes = costs[one][label]
        # One term per operator and one for the pair (Kolmogorov and Zabih, 2004, section 4).
        keep[source] += both_keep
        take[source] += first_takes
        take[target] -= first_takes
        link = max(0.0, first_takes + second_takes - both_keep)
        edges[source, target] = edges.get((source, target), 0.0) + link
    taken = _cut(keep, take, edges)
    return [label if taken[index] else labels[index] for index in range(size)]


_WHOLE = 2**29
"""Costs become whole numbers that add up to this; a label that cannot be has twice as much."""


def _cut(keep: np.ndarray, take: np.ndarray, edges: dict[tuple[int, int], float]) -> Sequence[bool]:
    """Find who takes: those on the far side of a minimum cut."""
    from scipy.sparse import csr_array  # slow to import
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    size = len(keep)
    finite = [float(each) for each in (*keep, *take) if np.isfinite(each)]
    total = sum(map(abs, finite)) + sum(edges.values()) or 1.0
    least = np.minimum(keep, take)
    arcs: dict[tuple[int, int], int] = {}

    def add(source: int, target: int, cost: float) -> None:
        whole = 2 * _WHOLE if not np.isfinite(cost) else round(cost / total * _WHOLE)
        if whole:
            arcs[source, target] = arcs.get((source, target), 0) + whole

    start, end = size, size + 1
    for index in range(size):
        # Cut off from the start it takes, cut off from the end it keeps.
        add(start, index, take[index] - least[index])
        add(index, end, keep[index] - least[index])
    for (source, target), cost in edges.items():
        add(source, target, cost)
    if not arcs:
        return [False] * size
    rows, columns = np.array(list(arcs)).T
    capacity = csr_array(
        (np.array(list(arcs.values()), np.int32), (rows, columns)), shape=(size + 2, size + 2)
    )
    flow = maximum_flow(capacity, start, end).flow
    left = (capacity - flow).tocsr()
    left.eliminate_zeros()
    near = set(breadth_first_order(left, start, return_predecessors=False).tolist())
    return [index not in near for index in range(size)]
