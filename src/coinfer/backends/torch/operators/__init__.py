"""Operators: the table from ONNX's operators to torch's functions. Knows no graph and no device."""

from __future__ import annotations

from collections.abc import Mapping

from coinfer.backends.torch.operators.elementwise import ELEMENTWISE
from coinfer.backends.torch.operators.moving import MOVING
from coinfer.backends.torch.operators.node import DTYPES, Operator, OperatorNode
from coinfer.backends.torch.operators.products import NORMALISATIONS, PRODUCTS, QUANTISATION
from coinfer.backends.torch.operators.reductions import REDUCTIONS
from coinfer.backends.torch.operators.windows import WINDOWS

__all__ = ["DTYPES", "OPERATORS", "Operator", "OperatorNode"]

OPERATORS: Mapping[str, Operator] = {
    **ELEMENTWISE,
    **MOVING,
    **NORMALISATIONS,
    **PRODUCTS,
    **QUANTISATION,
    **REDUCTIONS,
    **WINDOWS,
}
"""By operator type, in the standard domain."""
