"""Operators along axes: reductions, softmax, sorting. Their axes count past that of M."""

from __future__ import annotations

from typing import Final

import numpy as np

from coinfer.graph.fusing.builder import Builder, View
from coinfer.graph.fusing.layout import AXIS, Layout
from coinfer.graph.fusing.rule import Rule, both, need, possible
from coinfer.graph.fusing.rules.axes import axis_view, constant_axes, normal, shifted
from coinfer.graph.fusing.site import Site

__all__ = ["RULES"]

_SOFTMAX_OF_ONE_AXIS: Final = 13
"""Before it, the axis and all behind it counted as one."""

_REDUCTIONS: Final = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
)


def _keeps_samples(site: Site, axes: tuple[int, ...]) -> frozenset[Layout]:
    """Leave packed out where the axis of samples vanishes: that of M would be the first then."""
    keeps = bool(site.number("keepdims", 1)) or 0 not in axes
    return possible(site, both if keeps else {Layout.STACKED})


# reductions


def _reduced(site: Site) -> tuple[int, ...]:
    x = site.given(0)
    need(x.is_tensor, "the rank of its input is not known")
    axes = constant_axes(site, 1)
    if axes is None or not axes:
        none = bool(site.number("noop_with_empty_axes", 0))
        # No axes mean all, and so those of the models, too.
        need(none or x.rank > 0, "it reduces a single number")
        return () if none else tuple(range(x.rank))
    return tuple(normal(axis, x.rank) for axis in axes)


def _reduction_layouts(site: Site) -> frozenset[Layout]:
    return _keeps_samples(site, _reduced(site))


def _merge_reduction(site: Site, layout: Layout, out: Builder) -> None:
    x, axes = site.given(0), _reduced(site)
    view = axis_view([x], axes, layout, out)
    value = out.view(x, view)
    moved = shifted(axes, view)
    if site.input(1) is not None or _takes_input(site):
        made = out.copy(site, [value, out.constant(moved, "axes")] if moved else [value])
    else:
        made = out.copy(site, [value], axes=moved)
    out.give_all(site, made, view)


def _takes_input(site: Site) -> bool:
    first = 13 if site.op_type == "ReduceSum" else 18
    return site.opset >= first


# one axis


def _axis(site: Site) -> int:
    x = site.given(0)
    need(x.is_tensor, "the rank of its input is not known")
    default = {"ArgMax": 0, "ArgMin": 0}.get(site.op_type, -1)
    if "axis" not in site.node.attributes and site.opset < _SOFTMAX_OF_ONE_AXIS:
        default = 1 if "max" in site.op_type.lower() and default else default
    return normal(site.number("axis", default), x.rank)


def _axis_layouts(site: Site) -> frozenset[Layout]:
    axis = _axis(site)
    need(all(each is None or each.is_shared for each in site.inputs[1:]), "its settings differ")
    if site.op_type.startswith("Arg"):
        return _keeps_samples(site, (axis,))
    if site.op_type in _FLATTENING and site.opset < _SOFTMAX_OF_ONE_AXIS:
        return possible(site, both if axis else {Layout.STACKED})  # all behind it counts as one
    return possible(site, both)


_FLATTENING: Final = ("Hardmax", "LogSoftmax", "Softmax")


def _merge_axis(site: Site, layout: Layout, out: Builder) -> None:
    x, axis = site.given(0), _axis(site)
    view = axis_view([x], [axis], layout, out)
    rest = [None if each is None else out.shared(each) for each in site.inputs[1:]]
    (moved,) = shifted([axis], view)
    out.give_all(site, out.copy(site, [out.view(x, view), *rest], axis=moved), view)


def _cumulative_layouts(site: Site) -> frozenset[Layout]:
    need(site.given(0).is_tensor, "the rank of its input is not known")
    need(site.constant(1) is not None, "its axis is not stored")
    return possible(site, both)


def _merge_cumulative(site: Site, layout: Layout, out: Builder) -> None:
    x, stored = site.given(0), site.constant(1)
    assert stored is not None
    axis = normal(int(np.ravel(stored)[0]), x.rank)
    view = axis_view([x], [axis], layout, out)
    moved = np.array(shifted([axis], view)[0], stored.dtype).reshape(stored.shape)
    made = out.copy(site, [out.view(x, view), out.constant(moved, "axis")])
    out.give_all(site, made, view)


def _one_hot_layouts(site: Site) -> frozenset[Layout]:
    need(all(each is None or each.is_shared for each in site.inputs[1:]), "its settings differ")
    return possible(site, {Layout.STACKED})


def _merge_one_hot(site: Site, layout: Layout, out: Builder) -> None:
    axis = site.number("axis", -1)
    rest = [None if each is None else out.shared(each) for each in site.inputs[1:]]
    indices = out.explicit(site.given(0), layout)
    made = out.copy(site, [indices, *rest], axis=axis + (axis >= 0))
    out.give_all(site, made, View(layout, False))


def _trilu_layouts(site: Site) -> frozenset[Layout]:
    need(all(each is None or each.is_shared for each in site.inputs[1:]), "its diagonal differs")
    return possible(site, both)


def _merge_last_axes(site: Site, layout: Layout, out: Builder) -> None:
    """It works on the last two axes."""
    x = site.given(0)
    view = out.best([x], layout, can_merge=x.rank - 2 > AXIS[layout])
    rest = [None if each is None else out.shared(each) for each in site.inputs[1:]]
    out.give_all(site, out.copy(site, [out.view(x, view), *rest]), view)


def _last_axes_layouts(site: Site) -> frozenset[Layout]:
    need(site.given(0).is_tensor, "the rank of its input is not known")
    ways = set(_trilu_layouts(site))
    if site.given(0).rank < 3:
        ways.discard(Layout.PACKED)
    return frozenset(ways)


_SHIFTED = "its axis counts past that of M"

RULES = {
    **{
        name: Rule(_reduction_layouts, _merge_reduction, "its axes count past that of M")
        for name in _REDUCTIONS
    },
    **{
        name: Rule(_axis_layouts, _merge_axis, _SHIFTED)
        for name in (
            "ArgMax",
            "ArgMin",
            "Hardmax",
            "LogSoftmax",
            "LpNormalization",
            "Softmax",
            "TopK",
        )
    },
    "CumSum": Rule(_cumulative_layouts, _merge_cumulative, _SHIFTED),
    "Det": Rule(_last_axes_layouts, _merge_last_axes, "M becomes an axis of the batch"),
    "OneHot": Rule(_one_hot_layouts, _merge_one_hot, _SHIFTED),
    "Trilu": Rule(_last_axes_layouts, _merge_last_axes, "M becomes an axis of the batch"),
}
