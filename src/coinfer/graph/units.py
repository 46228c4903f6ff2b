"""Unit subgraphs: maximal groups of operators with the same processors (Band, MobiSys 2022).

Knows operators and sets of processors; knows nothing of time, spans or libraries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from coinfer.errors import ConfigurationError
from coinfer.graph.operators import Operators, labelled_runs

__all__ = [
    "Support",
    "UnitSubgraph",
    "able_to_run",
    "fallback_units",
    "find_units",
    "island_sizes",
]

Support = Mapping[str, frozenset[int]]
"""Indices of the operators that a processor can run, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSubgraph:
    """Operators that always run together. Units are disjoint and in topological order.

    Attributes:
        operators: Their indices, ascending.
        processors: Names of the processors that can run all of them.
    """

    operators: tuple[int, ...]
    processors: frozenset[str]


def find_units(
    operators: Operators, support: Support, minimum_size: int | Mapping[str, int] = 1
) -> tuple[UnitSubgraph, ...]:
    """Cut a graph into unit subgraphs, by Band's steps 1 to 3.

    A unit starts with the first operator that is ready and grows by every ready operator that the
    same processors support. It need not be connected. What cannot be parted (`Operators.groups`)
    counts as one operator, which a processor supports if it supports all of it.

    Args:
        operators: The graph.
        support: What each processor can run.
        minimum_size: A processor is left out for a group of neighbouring operators that is smaller
            than this, if others run them: a switch there would not pay. One number, or one per
            processor (1 for those not named).

    Returns:
        At least one unit; a graph without operators gives one that is empty.

    Raises:
        ConfigurationError: no processor runs an operator, or operators that cannot be parted.
    """
    settled = _settle_support(operators, support, minimum_size)
    producers = dict(enumerate(operators.group_producers))
    return tuple(
        UnitSubgraph(operators=operators.members(groups), processors=processors)
        for processors, groups in labelled_runs(producers, settled.__getitem__)
    ) or (UnitSubgraph(operators=(), processors=frozenset(support)),)


def fallback_units(
    operators: Operators, support: Support, minimum_size: int | Mapping[str, int] = 1
) -> tuple[UnitSubgraph, ...]:
    """Cut a graph into units that every processor's alternating groups are made of.

    An operator's level on a processor counts the switches before it. Along an edge no level
    falls, so operators of equal levels on all processors form units, and the order of the levels
    is an order in which these can run.

    Raises:
        ConfigurationError: no processor runs an operator, or operators that cannot be parted.
    """
    settled = _settle_support(operators, support, minimum_size)
    producers = operators.group_producers
    rows = [_levels(producers, [name in each for each in settled]) for name in support]
    units: dict[tuple[int, ...], list[int]] = {}
    for group, levels in enumerate(zip(*rows, strict=True)):
        units.setdefault(levels, []).append(group)
    return tuple(
        UnitSubgraph(operators=operators.members(groups), processors=settled[groups[0]])
        for _, groups in sorted(units.items())
    ) or (UnitSubgraph(operators=(), processors=frozenset(support)),)


def island_sizes(operators: Operators, supported: frozenset[int]) -> tuple[int, ...]:
    """Sizes of the groups of neighbouring operators that a processor supports, each size once.

    A minimum size between two of them changes nothing, so a search needs to try only these.
    Empty if the processor supports everything or nothing.
    """
    able = [supported.issuperset(members) for members in operators.groups]
    islands = _islands(operators, able)
    return tuple(sorted({len(operators.members(island)) for island in islands}))


def able_to_run(operators: Iterable[int], support: Support) -> frozenset[str]:
    """Return the processors that can run all of these operators."""
    wanted = frozenset(operators)
    return frozenset(name for name, known in support.items() if known >= wanted)


def _settle_support(
    operators: Operators, support: Support, minimum_size: int | Mapping[str, int]
) -> tuple[frozenset[str], ...]:
    """Give the processors of each of `Operators.groups`, small islands given up.

    Raises:
        ConfigurationError: a group has none.
    """
    names = [set(able_to_run(members, support)) for members in operators.groups]
    for members, processors in zip(operators.groups, names, strict=True):
        if not processors:
            raise _unsupported(operators, members, support)
    for name in support:
        least = minimum_size if isinstance(minimum_size, int) else minimum_size.get(name, 1)
        for island in _islands(operators, [name in each for each in names]):
            alone = any(names[group] == {name} for group in island)
            if len(operators.members(island)) < least and not alone:
                for group in island:
                    names[group].discard(name)
    return tuple(frozenset(each) for each in names)


def _unsupported(
    operators: Operators, members: Sequence[int], support: Support
) -> ConfigurationError:
    known = ", ".join(support) or "none"
    nowhere = [i for i in members if not any(i in each for each in support.values())]
    if nowhere:
        operator = operators[nowhere[0]]
        return ConfigurationError(
            f"operator {operator.name!r} ({operator.op_type}) runs on none of the processors: "
            f"{known}; add one that supports it"
        )
    first, last = operators[members[0]], operators[members[-1]]
    return ConfigurationError(
        f"operators {first.name!r} ({first.op_type}) to {last.name!r} ({last.op_type}) cannot be "
        f"parted, because what they pass on is no tensor of known rank, and none of the "
        f"processors runs all of them: {known}; add one that does"
    )


def _levels(producers: Sequence[Iterable[int]], able: Sequence[bool]) -> list[int]:
    levels: list[int] = []
    for group, before in enumerate(producers):
        level = max((levels[producer] for producer in before), default=0)
        levels.append(level + (level % 2 == (1 if able[group] else 0)))
    return levels


def _islands(operators: Operators, able: Sequence[bool]) -> list[list[int]]:
    """Maximal supported groups, alternating with unsupported ones; none if never a switch."""
    if all(able):
        return []
    found: dict[int, list[int]] = {}
    for group, level in enumerate(_levels(operators.group_producers, able)):
        if level % 2 == 0:
            found.setdefault(level, []).append(group)
    return list(found.values())
