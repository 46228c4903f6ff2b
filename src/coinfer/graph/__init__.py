"""Pure functions on model graphs: cost, cuts and exact transforms.

Knows ONNX graphs; imports no library that runs them, no clock and no threads.
"""

from __future__ import annotations

from coinfer.graph.cost import (
    ModelCost,
    OperatorCost,
    TensorSize,
    WeightSize,
    operator_costs,
    total,
)
from coinfer.graph.extract import extract
from coinfer.graph.operators import Operator, Operators
from coinfer.graph.partition import (
    Border,
    Mode,
    Partition,
    PartitionOptions,
    choose_partition,
    partition_at,
)
from coinfer.graph.shapes import bind_shapes, static_shape
from coinfer.graph.shares import costs_by_operator, operator_shares, value_bytes
from coinfer.graph.units import UnitSubgraph, find_units, island_sizes

__all__ = [
    "Border",
    "Mode",
    "ModelCost",
    "Operator",
    "OperatorCost",
    "Operators",
    "Partition",
    "PartitionOptions",
    "TensorSize",
    "UnitSubgraph",
    "WeightSize",
    "bind_shapes",
    "choose_partition",
    "costs_by_operator",
    "extract",
    "find_units",
    "island_sizes",
    "operator_costs",
    "operator_shares",
    "partition_at",
    "static_shape",
    "total",
    "value_bytes",
]
