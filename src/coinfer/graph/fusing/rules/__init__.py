"""The rules by which operators are merged: one file per family, one table of all.

What has no rule runs once per model in the fused graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from coinfer.graph.fusing.rule import Rule
from coinfer.graph.fusing.rules import (
    along_axes,
    attention,
    convolution,
    dense,
    elementwise,
    gathering,
    images,
    moving,
    normalisation,
    quantised,
)

__all__ = ["RULES"]

_FAMILIES: Final = (
    *(convolution, dense, normalisation, elementwise, moving, gathering),
    *(along_axes, images, attention, quantised),
)

RULES: Final[Mapping[str, Rule]] = {
    op_type: rule for family in _FAMILIES for op_type, rule in family.RULES.items()
}
"""The rule of each type of operator of ONNX's own domain."""
