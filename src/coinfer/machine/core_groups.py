"""Core groups: which cores are worth using together, of every useful width. Pure.

A group lies inside of one last-level cache as long as that has cores enough, then inside of one
NUMA node; its cores are of one kind, but for the group of all. So a wide run keeps its data in one
cache, and pools of threads never wait for a core of a slower kind.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from coinfer.machine.topology import Core, Topology

__all__ = ["CoreGroup", "core_groups"]


class CoreGroup(NamedTuple):
    """Cores to use together.

    Attributes:
        name: Positions of its cores among those in use: `3`, `0-3`, or `_all`.
        numbers: The system's numbers of one hardware thread of each.
        spread: What tells it from other groups of the same width (`Topology.spread`).
    """

    name: str
    numbers: tuple[int, ...]
    spread: str


def core_groups(topology: Topology) -> tuple[CoreGroup, ...]:
    """Return the groups: each core, then 2, 4, ... aligned, whole caches, whole nodes, all.

    >>> [group.name for group in core_groups(Topology.flat(range(4)))]
    ['0', '1', '2', '3', '0-1', '2-3', '_all']
    >>> [group.name for group in core_groups(Topology.flat([4, 6]))]
    ['0', '1', '_all']
    """
    used, count = topology.used, len(topology.used)
    ranges = {(at, at + 1): None for at in range(count)}
    ranges |= dict.fromkeys(sorted(_ranges(topology), key=lambda r: (r[1] - r[0], r)))
    ranges[0, count] = None
    found = []
    for first, end in ranges:
        numbers = used[first:end]
        name = str(first) if end - first == 1 else f"{first}-{end - 1}"
        is_all = end - first == count > 1
        found.append(CoreGroup("_all" if is_all else name, numbers, topology.spread(numbers)))
    return tuple(found)


def _ranges(topology: Topology) -> Iterator[tuple[int, int]]:
    """Yield ranges of positions of several cores, some of them more than once."""
    cores = [topology.core_of(number) for number in topology.used]
    for first, end in _runs(cores, lambda core: (core.kind, core.node, core.cache)):
        width = 2
        while width < end - first:
            yield from ((at, at + width) for at in range(first, end - width + 1, width))
            width *= 2
        if end - first > 1:
            yield first, end
    for key in (_by_node, _by_kind):
        yield from ((first, end) for first, end in _runs(cores, key) if end - first > 1)


def _by_node(core: Core) -> Hashable:
    return core.kind, core.node


def _by_kind(core: Core) -> Hashable:
    return core.kind


def _runs(cores: Sequence[Core], key: Callable[[Core], Hashable]) -> Iterator[tuple[int, int]]:
    first = 0
    for _, group in groupby(cores, key):
        end = first + len(list(group))
        yield first, end
        first = end
