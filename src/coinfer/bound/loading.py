"""Loading bound: the least time that any schedule loads for, within a memory budget.

What is loaded at a time takes no more than the budget, one thing is loaded at a time, and a request
runs what is loaded. Nothing else is assumed: a schedule knows all that is to come, evicts as it
likes, and has loaded whatever is best before it begins.

Cut the requests, in the order in which they are issued, into *phases*. Of those that are issued in
a phase, all but the `open` that may be unanswered at its end are run in it. What these need was
there when the phase began, which the budget limits, or is loaded in it. By phase `p`, with places
`i` of `size` and `load` seconds, models `m` of which `n[m, p]` requests are issued,

    minimise    sum over i of load[i] l[i, p]
    subject to  sum over i in pool of size[i] r[i, p]  <=  budget[pool]
                sum over m of n[m, p] y[m, p]  <=  open            y: the share that waits
                l[i, p] + r[i, p]  >=  use of i by m               for every m
                use flows from the start of m to its end: 1 - y[m, p]

in which `l`, `r` and `y` are 0 or 1 for a schedule, and anything between them here. So a schedule
can need more, never less. It needs more where things take turns: that what is loaded in a phase has
to push out what the next one needs is not in the program. What is solved is the dual, which has the
prices of a byte and of a request that waits instead of a flow per phase: any prices give a bound,
the best ones this one.

Models that share a place, or a run, are taken as one that any of them can serve.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from coinfer.errors import InvariantError

__all__ = ["Part", "least_loading_s", "phases_of"]


class Part(NamedTuple):
    """What must be loaded to run a model from one boundary of its units to another.

    Attributes:
        first: Its first unit.
        last: Its last unit.
        place: Equal for what is loaded only once.
        pool: The memory in which it is.
        size: Bytes.
        load_s: Seconds to load it.
    """

    first: int
    last: int
    place: Hashable
    pool: str
    size: float
    load_s: float


class _Row(NamedTuple):
    """An inequality of the dual: coefficients by variable, and what their sum is at most."""

    cells: Mapping[Hashable, float]
    most: float


def least_loading_s(
    parts: Mapping[str, Sequence[Sequence[Part]]],
    budgets: Mapping[str, float],
    phases: Iterable[Mapping[str, int]],
    open_requests: int = 0,
) -> float:
    """Return the least seconds of loading in all phases together.

    Args:
        parts: By model, its variants; each as what can be loaded of it. A model without any is
            always there. Memories without a budget hold everything.
        budgets: Bytes by memory.
        phases: By phase, how many requests of each model are issued in it.
        open_requests: How many of a phase may be unanswered when it ends.

    >>> parts = {m: [[Part(0, 0, m, "host", 10, 0.2)]] for m in "abc"}
    >>> round(least_loading_s(parts, {"host": 20}, [{"a": 3, "b": 1, "c": 2}]), 6)
    0.2
    """
    groups = _groups(parts)
    numbers: Counter[tuple[frozenset[str], int]] = Counter()
    n_phases = 0
    for phase in phases:
        n_phases += 1
        asked: Counter[frozenset[str]] = Counter()
        for model, issued in phase.items():
            if issued and model in groups:
                asked[groups[model]] += issued
        numbers.update(asked.items())
    if not numbers:
        return 0.0
    rows = list(_prices(parts, groups, budgets, {group for group, _ in numbers}))
    gains: dict[Hashable, float] = {("byte", pool): -b * n_phases for pool, b in budgets.items()}
    gains["wait"] = -float(open_requests * n_phases)
    for (group, issued), times in numbers.items():
        served = ("served", group, issued)
        gains[served] = times
        rows.append(_Row({served: 1.0, "wait": -float(issued)}, 0.0))
        rows.append(_Row({served: 1.0, ("reached", group): -1.0}, 0.0))
    return max(0.0, _most(gains, rows))


def phases_of(sequence: Sequence[str], length: int) -> list[Mapping[str, int]]:
    """Cut requests into phases of a length; what is left over is in none.

    >>> phases_of("aabac", 2)
    [Counter({'a': 2}), Counter({'b': 1, 'a': 1})]
    """
    whole = len(sequence) - len(sequence) % length
    return [Counter(sequence[first : first + length]) for first in range(0, whole, length)]


def _groups(parts: Mapping[str, Sequence[Sequence[Part]]]) -> dict[str, frozenset[str]]:
    """Put models together that share a place; leave out those that need nothing."""
    known = {model: ways for model, ways in parts.items() if ways and all(ways)}
    members: dict[str, set[str]] = {model: {model} for model in known}
    owners: dict[Hashable, str] = {}
    for model, ways in known.items():
        for part in (part for way in ways for part in way):
            other = owners.setdefault(part.place, model)
            if members[other] is not members[model]:
                members[other] |= members[model]
                for each in members[other]:
                    members[each] = members[other]
    return {model: frozenset(found) for model, found in members.items()}


def _prices(
    parts: Mapping[str, Sequence[Sequence[Part]]],
    groups: Mapping[str, frozenset[str]],
    budgets: Mapping[str, float],
    asked: set[frozenset[str]],
) -> Iterable[_Row]:
    """Yield what limits the prices: no way to the end of a model is dearer than what it needs."""
    seen = set[Hashable]()
    for model, group in groups.items():
        if group not in asked:
            continue
        for number, way in enumerate(parts[model]):
            end = 1 + max(part.last for part in way)
            for part in way:
                place = ("place", part.place)
                at, then = (("reached", model, number, b) for b in (part.first, part.last + 1))
                cells: dict[Hashable, float] = {then: 1.0, place: -1.0}
                if part.first:
                    cells[at] = -1.0
                yield _Row(cells, 0.0)
                if place not in seen:
                    seen.add(place)
                    yield _Row({place: 1.0}, part.load_s if part.pool in budgets else 0.0)
                    if part.pool in budgets:
                        yield _Row({place: 1.0, ("byte", part.pool): -part.size}, 0.0)
            yield _Row({("reached", group): 1.0, ("reached", model, number, end): -1.0}, 0.0)


def _most(gains: Mapping[Hashable, float], rows: Sequence[_Row]) -> float:
    """Return the largest sum of gains that the rows allow; no variable is negative."""
    names = dict.fromkeys([*gains, *(name for row in rows for name in row.cells)])
    columns = {name: at for at, name in enumerate(names)}
    matrix = np.zeros((len(rows), len(columns)))
    for at, row in enumerate(rows):
        for name, value in row.cells.items():
            matrix[at, columns[name]] += value
    costs = np.zeros(len(columns))
    for name, gain in gains.items():
        costs[columns[name]] = -gain
    # Bytes are large and seconds small: the price of a byte is counted by the largest place.
    scales = np.abs(matrix).max(axis=0, initial=0.0)
    scales[scales == 0.0] = 1.0
    from scipy.optimize import linprog  # slow to import

    found = linprog(
        costs / scales, A_ub=matrix / scales, b_ub=[row.most for row in rows], method="highs"
    )
    if found.status != 0 or found.fun is None:
        # Cannot happen: no prices at all are allowed, and what is reached limits what is served.
        raise InvariantError(f"the linear program of loading was not solved: {found.message}")
    return float(-found.fun)
