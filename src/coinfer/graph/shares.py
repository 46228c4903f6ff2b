"""Shares: estimate the part of a model's time that each operator takes, from arithmetic and bytes.

Knows no processor. Multiplied by the measured time of the whole model, the shares are seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from coinfer.model import Model
from coinfer.model.model import NO_DIMS

if TYPE_CHECKING:
    from coinfer.graph.cost import OperatorCost
    from coinfer.graph.operators import Operators

__all__ = ["costs_by_operator", "operator_shares", "work_of"]

_MACS_PER_BYTE: Final = 10.0
"""Arithmetic that a core does while it moves a byte: about 100 GMAC/s and 10 GB/s."""

_OVERHEAD_MACS: Final = 100_000.0
"""Calling a kernel takes about a microsecond, whatever it computes."""


def operator_shares(operators: Operators, costs: Mapping[str, OperatorCost]) -> tuple[float, ...]:
    """Guess each operator's share of the time, by the roofline: arithmetic or memory, the slower.

    Args:
        operators: The operators.
        costs: Of the same model, from `costs_by_operator`; of a range of arithmetic the
            most counts, and what is unknown counts as nothing.

    Returns:
        Shares that add up to 1; empty for a model without operators.
    """
    weights = [
        _OVERHEAD_MACS + (_roofline(costs[o.key]) if o.key in costs else 0.0) for o in operators
    ]
    whole = sum(weights)
    return tuple(weight / whole for weight in weights)


def work_of(costs: Iterable[OperatorCost]) -> float:
    """Add up what operators take, in units of arithmetic, by the same roofline."""
    return sum(_OVERHEAD_MACS + _roofline(cost) for cost in costs)


def costs_by_operator(model: Model, dims: Mapping[str, int] = NO_DIMS) -> dict[str, OperatorCost]:
    """Count what each operator costs for one sample of these sizes, by its `Operator.key`."""
    from coinfer.graph.cost import operator_costs  # needs the heavy libraries
    from coinfer.graph.operators import inlined

    costs = operator_costs(inlined(model.graph), dims=dims)
    return {cost.writes[0].name: cost for cost in costs if cost.writes}


def _roofline(cost: OperatorCost) -> float:
    moved = sum(tensor.bytes or 0 for tensor in (*cost.reads, *cost.writes)) + (
        cost.weight_bytes or 0
    )
    macs = cost.mac_range.least if cost.mac_range.most is None else cost.mac_range.most
    return max(float(macs), _MACS_PER_BYTE * moved)
