"""Pure functions on model graphs: cost, cuts and exact transforms.

Knows ONNX graphs; imports no library that runs them, no clock and no threads.
"""

from __future__ import annotations

from coinfer.graph.cost import OperatorCost, TensorSize, operator_costs, total
from coinfer.graph.extract import extract
from coinfer.graph.operators import Operators
from coinfer.graph.partition import (
    Mode,
    Partition,
    PartitionOptions,
    choose_partition,
    partition_at,
)
from coinfer.graph.shapes import bind_shapes
from coinfer.graph.shares import costs_by_operator, operator_shares
from coinfer.graph.units import find_units, island_sizes

__all__ = [
    "Mode",
    "OperatorCost",
    "Operators",
    "Partition",
    "PartitionOptions",
    "TensorSize",
    "bind_shapes",
    "choose_partition",
    "costs_by_operator",
    "extract",
    "find_units",
    "island_sizes",
    "operator_costs",
    "operator_shares",
    "partition_at",
    "total",
]
