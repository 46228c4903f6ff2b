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
from coinfer.graph.shapes import bind_shapes, static_shape

__all__ = [
    "ModelCost",
    "OperatorCost",
    "TensorSize",
    "WeightSize",
    "bind_shapes",
    "operator_costs",
    "static_shape",
    "total",
]
