"""Cut units into smaller ones, so that they are short or of about equal cost.

Knows units and costs; `cuts` decides where to cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from coinfer.graph.cuts import balanced_cuts, limiting_cuts
from coinfer.graph.operators import Operators
from coinfer.graph.units import UnitSubgraph

__all__ = ["balanced_pieces", "limited_pieces"]

_FUSED_WITH_PRODUCER: Final = frozenset(
    {
        *("Add", "BatchNormalization", "Clip", "DequantizeLinear", "Elu", "Erf", "Gelu"),
        *("HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "PRelu", "QuantizeLinear", "Relu"),
        *("Sigmoid", "Softplus", "Sub", "Sum", "Swish", "Tanh"),
    }
)
"""Libraries compute these while the producer's result is at hand, if both are in one part."""

_COST_OF_PARTING: Final = 3.0
"""Times that the value then is written or read, which a cut in front of such an operator adds to
the one that any cut costs."""


def balanced_pieces(
    units: Sequence[UnitSubgraph],
    operators: Operators,
    value_bytes: Mapping[str, int],
    shares: Sequence[float],
    pieces: int,
) -> tuple[UnitSubgraph, ...]:
    """Cut units so that there are at least so many, none with much more than its share.

    Args:
        units: What to cut.
        operators: What the units are made of.
        value_bytes: Bytes of values, where known.
        shares: Each operator's share of the cost; they add up to 1.
        pieces: Number of units wanted; fewer if there are fewer operators.
    """
    slicer = _Slicer(units, operators, value_bytes)

    def cut(unit: UnitSubgraph) -> Iterator[UnitSubgraph]:
        row = slicer.costs(unit, shares)
        wanted = math.ceil(sum(row) * pieces - 1e-6)
        return slicer.cut(unit, lambda crossing: balanced_cuts(row, crossing, wanted))

    return tuple(piece for unit in units for piece in cut(unit))


def limited_pieces(
    units: Sequence[UnitSubgraph],
    operators: Operators,
    value_bytes: Mapping[str, int],
    seconds: Mapping[str, Sequence[float]],
    longest_s: float,
) -> tuple[UnitSubgraph, ...]:
    """Cut units so that none takes longer than a time, but for single operators that do.

    Args:
        units: What to cut.
        operators: What the units are made of.
        value_bytes: Bytes of values, where known.
        seconds: Per processor, the expected seconds of each operator; others are not limited.
        longest_s: What a unit may take at most on each processor that may run it, in seconds.
    """
    slicer = _Slicer(units, operators, value_bytes)

    def cut(unit: UnitSubgraph) -> Iterator[UnitSubgraph]:
        rows = [slicer.costs(unit, row) for name, row in seconds.items() if name in unit.processors]
        return slicer.cut(
            unit, lambda crossing: limiting_cuts(rows, crossing, [longest_s] * len(rows))
        )

    return tuple(piece for unit in units for piece in cut(unit))


class _Slicer:
    """Cuts units between groups of operators, knowing how many bytes cross there."""

    def __init__(
        self,
        units: Sequence[UnitSubgraph],
        operators: Operators,
        value_bytes: Mapping[str, int],
    ) -> None:
        self._operators = operators
        group_of = operators.group_of
        self._groups = {
            unit: sorted({group_of[index] for index in unit.operators}) for unit in units
        }
        self._place = {
            group: place
            for place, group in enumerate(g for groups in self._groups.values() for g in groups)
        }
        self._crossing = self._bytes_crossing(group_of, value_bytes)

    def costs(self, unit: UnitSubgraph, row: Sequence[float]) -> list[float]:
        """Sum the operators' costs over each group of a unit."""
        return [
            sum(row[index] for index in self._operators.groups[group])
            for group in self._groups[unit]
        ]

    def cut(
        self, unit: UnitSubgraph, choose: Callable[[Sequence[float]], tuple[int, ...]]
    ) -> Iterator[UnitSubgraph]:
        groups = self._groups[unit]
        if len(groups) < 2:
            yield unit
            return
        cuts = choose([self._crossing[self._place[group]] for group in groups])
        for first, end in zip((0, *cuts), (*cuts, len(groups)), strict=True):
            members = self._operators.members(groups[first:end])
            yield UnitSubgraph(operators=members, processors=unit.processors)

    def _bytes_crossing(
        self, group_of: Mapping[int, int], value_bytes: Mapping[str, int]
    ) -> list[float]:
        """What a cut before each place costs, in bytes of intermediates that cross there."""
        made = {n: self._place[group_of[o.index]] for o in self._operators for n in o.writes}
        last: dict[str, int] = {}
        fused: set[str] = set()
        for operator in self._operators:
            place = self._place[group_of[operator.index]]
            for name in operator.reads:
                if name not in last and operator.op_type in _FUSED_WITH_PRODUCER:
                    fused.add(name)
                last[name] = max(last.get(name, 0), place)
        # A value of unknown size counts as the largest, so that cuts avoid it.
        unknown = max(value_bytes.values(), default=1)
        change = [0.0] * (len(self._place) + 1)
        for name, place in made.items():
            if last.get(name, place) > place:
                size = float(value_bytes.get(name, unknown))
                size *= _COST_OF_PARTING if name in fused else 1.0
                change[place + 1] += size
                change[last[name] + 1] -= size
        return list(accumulate(change))
