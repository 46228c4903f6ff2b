"""Axes: shift what operators say of axes past the one that M models get. Knows no operator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from coinfer.graph.fusing.builder import Builder, View
from coinfer.graph.fusing.bundle import Bundle
from coinfer.graph.fusing.layout import AXIS, Layout
from coinfer.graph.fusing.rule import need
from coinfer.graph.fusing.site import Site

__all__ = ["axis_view", "constant_axes", "normal", "shifted", "with_ones"]


def normal(axis: int, rank: int) -> int:
    """Count an axis from the first one."""
    return axis + rank if axis < 0 else axis


def shifted(axes: Iterable[int], view: View) -> list[int]:
    """Say where axes, counted from the first, are in a view.

    >>> shifted([0, 1, 2], View(Layout.PACKED, False))
    [0, 2, 3]
    """
    at = AXIS[view.layout]
    if view.is_merged:
        return list(axes)
    return [axis + (axis >= at) for axis in axes]


def axis_view(
    operands: Sequence[Bundle], axes: Iterable[int], layout: Layout, out: Builder
) -> View:
    """Choose the view for an operator along axes: merged if it leaves the merged axis alone."""
    at = AXIS[layout]
    can_merge = min(axes, default=at) > at and all(each.rank > at for each in operands)
    return out.best(operands, layout, can_merge=can_merge)


def constant_axes(site: Site, index: int, name: str = "axes") -> tuple[int, ...] | None:
    """Read axes, from an input or from the attribute that older opsets have; None if left out.

    Raises:
        NotMergedError: they are computed, or differ.
    """
    if site.input(index) is None:
        return site.numbers(name)
    found = site.constant(index)
    need(found is not None, f"its {name} are not stored")
    assert found is not None
    return tuple(int(axis) for axis in np.atleast_1d(found))


def with_ones(vector: ir.Value, front: Sequence[int], out: Builder, name: str) -> ir.Value:
    """Put numbers in front of a vector that is computed."""
    return out.concat([out.constant(list(front), "sizes"), vector], 0, name)
