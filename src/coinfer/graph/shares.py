"""Shares: what part of a model's time each operator takes, guessed from arithmetic and bytes.

Knows no processor; a measured time of the whole turns the shares into seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from coinfer.graph.cost import OperatorCost, operator_costs
from coinfer.graph.operators import Operators, inlined
from coinfer.model import Model

__all__ = ["costs_by_operator", "operator_shares", "value_bytes"]

_MACS_PER_BYTE: Final = 10.0
"""Arithmetic that a core does while it moves a byte: about 100 GMAC/s and 10 GB/s."""

_OVERHEAD_MACS: Final = 100_000.0
"""Calling a kernel takes about a microsecond, whatever it computes."""


def operator_shares(
    operators: Operators,
    costs: Mapping[str, OperatorCost],
    *,
    macs_per_byte: float = _MACS_PER_BYTE,
) -> tuple[float, ...]:
    """Guess each operator's share of the time, by the roofline: arithmetic or memory, the slower.

    Args:
        operators: The operators.
        costs: Of the same model, from `costs_by_operator`; what is unknown counts as nothing.
        macs_per_byte: Multiply-accumulates that a processor does while it moves a byte.

    Returns:
        Shares that add up to 1; empty for a model without operators.
    """
    weights = [
        _OVERHEAD_MACS + (_roofline(costs[o.key], macs_per_byte) if o.key in costs else 0.0)
        for o in operators
    ]
    whole = sum(weights)
    return tuple(weight / whole for weight in weights)


def costs_by_operator(model: Model, *, batch: int = 1) -> dict[str, OperatorCost]:
    """Count the cost of each operator, by the first value that it makes (`Operator.key`)."""
    costs = operator_costs(inlined(model.graph), batch=batch)
    return {cost.writes[0].name: cost for cost in costs if cost.writes}


def value_bytes(costs: Iterable[OperatorCost]) -> dict[str, int]:
    """Gather the sizes of all values that operators read or write, where known."""
    return {
        tensor.name: tensor.bytes
        for cost in costs
        for tensor in (*cost.reads, *cost.writes)
        if tensor.bytes is not None
    }


def _roofline(cost: OperatorCost, macs_per_byte: float) -> float:
    moved = sum(tensor.bytes or 0 for tensor in (*cost.reads, *cost.writes)) + cost.weight_bytes
    return max(float(cost.macs or 0), macs_per_byte * moved)
