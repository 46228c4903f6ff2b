"""Branches: cut units so that independent branches of a network can run at the same time.

Knows units and costs; knows no processor. The rule: some operators lie on every way through the
graph. Between two of them lies a region. Parts of a region that are not connected are independent.
They are put into two sides of about equal cost. Both sides become units next to each other if the
smaller side is worth an execution of its own. Parts that are not cut are searched the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from typing import NamedTuple

from coinfer.graph.operators import Operators
from coinfer.graph.units import UnitSubgraph

__all__ = ["branch_pieces"]


class _Run(NamedTuple):
    """Groups of operators that come one after the other, or two sides that need not.

    Attributes:
        sides: One or two; each in topological order.
        gain: What running both sides at once would save: the cost of the smaller one.
    """

    sides: tuple[tuple[int, ...], ...]
    gain: float = 0.0


def branch_pieces(
    units: Sequence[UnitSubgraph], operators: Operators, costs: Sequence[float], least: float
) -> tuple[UnitSubgraph, ...]:
    """Cut units around regions whose two sides do not need each other.

    Args:
        units: What to cut.
        operators: What the units are made of.
        costs: Of each operator.
        least: What the smaller side of a region must cost at least, in the same unit.

    Returns:
        Units in an order in which they can run; the sides of a region next to each other.

    >>> import onnx_ir as ir
    >>> model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["": 20]>
    ... g (float[3] x) => (float[3] y) {
    ...   a = Relu(x)  l = Exp(a)  r = Tanh(a)  m = Sin(l)  y = Add(m, r) }''')
    >>> operators = Operators.of(model)
    >>> whole = UnitSubgraph(operators=(0, 1, 2, 3, 4), processors=frozenset({"cpu"}))
    >>> [unit.operators for unit in branch_pieces([whole], operators, [1.0] * 5, 1.0)]
    [(0,), (1, 3), (2,), (4,)]
    """
    finder = _Finder(operators, costs, least)
    return tuple(piece for unit in units for piece in finder.cut(unit))


class _Finder:
    """Finds regions among groups of operators that cannot be parted (`Operators.groups`)."""

    def __init__(self, operators: Operators, costs: Sequence[float], least: float) -> None:
        self._operators = operators
        self._least = least
        self._group_of = operators.group_of
        self._costs = [sum(costs[i] for i in members) for members in operators.groups]
        self._producers = operators.group_producers

    def cut(self, unit: UnitSubgraph) -> Iterator[UnitSubgraph]:
        runs = self._runs(sorted({self._group_of[index] for index in unit.operators}))
        if not runs:
            yield unit  # of a graph without operators
        for is_parted, found in groupby(runs, lambda run: len(run.sides) > 1):
            sides = [side for run in found for side in run.sides]
            for groups in sides if is_parted else [tuple(chain.from_iterable(sides))]:
                members = self._operators.members(groups)
                yield UnitSubgraph(operators=members, processors=unit.processors)

    def _runs(self, groups: Sequence[int]) -> list[_Run]:
        """Take groups, in topological order, apart into runs."""
        runs: list[_Run] = []
        region: list[int] = []
        passed = self._passed(groups)
        for group in groups:
            if group not in passed:
                region.append(group)
                continue
            runs += self._parted(region)
            runs.append(_Run(((group,),)))
            region = []
        return runs + self._parted(region)

    def _passed(self, groups: Sequence[int]) -> set[int]:
        """Return those that all others come before or after."""
        place = {group: at for at, group in enumerate(groups)}
        before, after = [0] * len(groups), [0] * len(groups)  # as bits
        for group, at in place.items():
            for producer in self._producers[group]:
                if producer in place:
                    before[at] |= before[place[producer]] | 1 << place[producer]
        for group, at in reversed(place.items()):
            for producer in self._producers[group]:
                if producer in place:
                    after[place[producer]] |= after[at] | 1 << at
        everyone = (1 << len(groups)) - 1
        return {
            group for group, at in place.items() if before[at] | after[at] | 1 << at == everyone
        }

    def _parted(self, region: Sequence[int]) -> list[_Run]:
        """Part a region into two sides, or look into its parts, whichever saves more."""
        if not region:
            return []
        parts = self._parts(region)
        inside = [_Run((tuple(region),))]
        if len(parts) > 1:
            inside = [run for part in parts for run in self._runs(part)]
            run = self._halved(parts)
            if run.gain >= max(self._least, sum(each.gain for each in inside)):
                return [run]
        return inside

    def _halved(self, parts: Sequence[Sequence[int]]) -> _Run:
        """Put parts into two sides of about equal cost: the dearest first, to the cheaper side."""
        costs = [sum(self._costs[group] for group in part) for part in parts]
        sides: tuple[list[int], list[int]] = ([], [])
        sums = [0.0, 0.0]
        for at in sorted(range(len(parts)), key=lambda at: -costs[at]):
            cheaper = 0 if sums[0] <= sums[1] else 1
            sides[cheaper].extend(parts[at])
            sums[cheaper] += costs[at]
        return _Run(tuple(tuple(sorted(side)) for side in sorted(sides)), min(sums))

    def _parts(self, region: Sequence[int]) -> list[list[int]]:
        """Return what is connected within a region, each in topological order."""
        part_of: dict[int, list[int]] = {}
        for group in region:
            part = [group]
            for producer in self._producers[group]:
                other = part_of.get(producer)
                if other is not None and other is not part:
                    part = other + part
                    part_of.update(dict.fromkeys(part, part))
            part_of[group] = part
            part_of.update(dict.fromkeys(part, part))
        return sorted({id(part): sorted(part) for part in part_of.values()}.values())
