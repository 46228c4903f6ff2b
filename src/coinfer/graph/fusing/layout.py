"""Layout: where the tensors of M models lie inside of one tensor. A value; knows no graph."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["AXIS", "MERGED_LAYOUTS", "Layout"]


class Layout(StrEnum):
    """How the M tensors of one value are kept.

    A stacked and a packed tensor each have two views that share their bytes: one with an axis of
    size M of its own, and one in which that axis is merged with the one that follows it.

    Members:
        STACKED: One after the other: `[M, b, ...]`, seen as `[M*b, ...]` when merged.
        PACKED: Side by side within a sample: `[b, M, C, ...]`, seen as `[b, M*C, ...]` when merged.
        BRANCHES: M tensors.
    """

    STACKED = "stacked"
    PACKED = "packed"
    BRANCHES = "branches"


AXIS: Final = {Layout.STACKED: 0, Layout.PACKED: 1}
"""The axis of M, and the one that it is merged with."""

MERGED_LAYOUTS: Final = frozenset(AXIS)
"""Layouts in which one operator works for all models."""
