"""Summary: what a graph is made of, in a few figures. Knows neither files nor graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Summary"]


class Summary(NamedTuple):
    """What a graph is made of.

    Attributes:
        op_types: Types of its operators, also of those in branches.
        weight_elements: Number of elements of its initializers by dtype, as ONNX names it: `FLOAT`.
        weight_bytes: Bytes of all initializers and constants, as stored.
    """

    op_types: frozenset[str]
    weight_elements: Mapping[str, int]
    weight_bytes: int
