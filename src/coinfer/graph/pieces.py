"""Cut units into smaller ones, so that they are short or of about equal cost.

Knows units and costs; `cuts` decides where to cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import Final

from coinfer.graph.cuts import balanced_cuts, limiting_cuts
from coinfer.graph.operators import Operators
from coinfer.graph.units import UnitSubgraph

__all__ = ["balanced_pieces", "limited_pieces"]

_Cuts = tuple[int, ...]

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

    def choose(_unit: UnitSubgraph, groups: Sequence[int], crossing: Sequence[float]) -> _Cuts:
        row = _sums(operators, groups, shares)
        return balanced_cuts(row, crossing, math.ceil(sum(row) * pieces - 1e-6))

    return _pieces(units, operators, value_bytes, choose)


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

    def choose(unit: UnitSubgraph, groups: Sequence[int], crossing: Sequence[float]) -> _Cuts:
        rows = [
            _sums(operators, groups, row)
            for name, row in seconds.items()
            if name in unit.processors
        ]
        return limiting_cuts(rows, crossing, [longest_s] * len(rows))

    return _pieces(units, operators, value_bytes, choose)


def _sums(operators: Operators, groups: Sequence[int], row: Sequence[float]) -> list[float]:
    """Sum the operators' costs over each group."""
    return [sum(row[index] for index in operators.groups[group]) for group in groups]


def _pieces(
    units: Sequence[UnitSubgraph],
    operators: Operators,
    value_bytes: Mapping[str, int],
    choose: Callable[[UnitSubgraph, Sequence[int], Sequence[float]], _Cuts],
) -> tuple[UnitSubgraph, ...]:
    """Cut units between groups of operators, where `choose` says from the bytes that cross."""
    group_of = operators.group_of
    groups_of = [sorted({group_of[index] for index in unit.operators}) for unit in units]
    order = {group: place for place, group in enumerate(chain.from_iterable(groups_of))}
    places = [order[group_of[operator.index]] for operator in operators]
    crossing = _bytes_crossing(operators, places, value_bytes)
    found = []
    for unit, groups in zip(units, groups_of, strict=True):
        cuts: _Cuts = ()
        if len(groups) > 1:
            cuts = choose(unit, groups, [crossing[order[group]] for group in groups])
        for first, end in pairwise((0, *cuts, len(groups))):
            members = operators.members(groups[first:end])
            found.append(UnitSubgraph(operators=members, processors=unit.processors))
    return tuple(found)


def _bytes_crossing(
    operators: Operators, places: Sequence[int], value_bytes: Mapping[str, int]
) -> list[float]:
    """What a cut before each place costs, in bytes of intermediates that cross there.

    Args:
        operators: The operators.
        places: For each, the place of its group among the groups of all units.
        value_bytes: Bytes of values, where known.
    """
    made = {name: places[operator.index] for operator in operators for name in operator.writes}
    last: dict[str, int] = {}
    fused: set[str] = set()
    for operator in operators:
        for name in operator.reads:
            if name not in last and operator.op_type in _FUSED_WITH_PRODUCER:
                fused.add(name)
            last[name] = max(last.get(name, 0), places[operator.index])
    # A value of unknown size counts as the largest, so that cuts avoid it.
    unknown = max(value_bytes.values(), default=1)
    inner = _inside_layers(operators, made)
    change = [0.0] * (len(places) + 1)
    for name, place in made.items():
        if last.get(name, place) > place:
            size = float(value_bytes.get(inner.get(name, name), unknown))
            size *= _COST_OF_PARTING if name in fused or name in inner else 1.0
            change[place + 1] += size
            change[last[name] + 1] -= size
    return list(accumulate(change))


def _inside_layers(operators: Operators, made: Container[str]) -> dict[str, str]:
    """Return the values between the parts of decomposed layers, with what the whole layer makes.

    The parts that `compressing.decompose` puts in are named after that. Few bytes cross there, but
    the parts are one layer: a cut inside is to cost more than one behind it.
    """
    found: dict[str, str] = {}
    for operator in operators:
        layer, _, part = operator.name.rpartition(".")
        if part in ("first", "core") and layer in made:
            found |= dict.fromkeys(operator.writes, layer)
    return found
