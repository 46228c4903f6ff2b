"""Normalisations: over channels with the parameters of all models, over features then scaled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from coinfer.graph.fusing.builder import Builder, View
from coinfer.graph.fusing.bundle import Bundle
from coinfer.graph.fusing.layout import AXIS, Layout
from coinfer.graph.fusing.rule import Rule, both, need, possible, stacked
from coinfer.graph.fusing.rules.axes import normal
from coinfer.graph.fusing.rules.elementwise import operand
from coinfer.graph.fusing.site import Site

__all__ = ["RULES"]


# over channels


def _parameters(site: Site) -> list[Bundle]:
    return [each for each in site.inputs[1:] if each is not None]


def _channel_layouts(site: Site) -> frozenset[Layout]:
    need(not site.number("training_mode", 0), "it is in training")
    need(sum(each is not None for each in site.outputs) == 1, "it gives statistics")
    frozen = all(each.is_shared for each in _parameters(site))
    return possible(site, both if frozen else {Layout.PACKED})


def _merge_channels(site: Site, layout: Layout, out: Builder) -> None:
    x = out.merged(site.given(0), layout)
    if layout is Layout.STACKED:
        parameters = [out.shared(each) for each in _parameters(site)]
    else:
        parameters = [out.merged(each, Layout.STACKED) for each in _parameters(site)]
    groups = {}
    if site.op_type == "GroupNormalization" and layout is Layout.PACKED:
        groups["num_groups"] = site.number("num_groups", 1) * site.models
    out.give_all(site, out.copy(site, [x, *parameters], **groups), View(layout, True))


# over features


def _first_axis(site: Site) -> int:
    x = site.given(0)
    need(x.is_tensor, "the rank of its input is not known")
    return normal(site.number("axis", -1), x.rank)


def _feature_layouts(site: Site) -> frozenset[Layout]:
    axis = _first_axis(site)
    if not all(each.is_shared for each in _parameters(site)):
        need(_ones_shape(site) is not None, "the shape of its scale is not known")
        statistics = [each for each in site.outputs[1:] if each is not None]
        need(not statistics, "it gives statistics")
    fixed = all(each.is_shared or each.is_stored for each in _parameters(site))
    return possible(site, both if axis > 1 and fixed else stacked)


def _ones_shape(site: Site) -> tuple[int, ...] | None:
    dims = site.given(1).dims
    if dims is None:
        return None
    sizes = tuple(size for size in dims if isinstance(size, int))
    return sizes if len(sizes) == len(dims) else None


def _merge_features(site: Site, layout: Layout, out: Builder) -> None:
    x, axis = site.given(0), _first_axis(site)
    at = AXIS[layout]
    frozen = all(each.is_shared for each in _parameters(site))
    view = out.best([x], layout, can_merge=axis > at and x.rank > at)
    if not frozen and layout is Layout.STACKED:
        view = View(layout, False)
    moved = axis if view.is_merged else axis + 1
    value = out.view(x, view)
    if frozen:
        parameters = [None if each is None else out.shared(each) for each in site.inputs[1:]]
        out.give_all(site, out.copy(site, [value, *parameters], axis=moved), view)
        return
    dtype, shape = site.given(1).values[0].dtype, _ones_shape(site)
    assert dtype is not None
    assert shape is not None
    ones = out.constant(np.ones(shape, dtype.numpy()), "ones")
    (value, *_) = out.copy(site, [value, ones], axis=moved)
    for op_type, bundle in zip(("Mul", "Add"), site.inputs[1:], strict=False):
        if bundle is not None:
            value = _applied(op_type, value, bundle, site, view, out)
    out.give(site.out, value, view)


def _applied(
    op_type: str, value: ir.Value, bundle: Bundle, site: Site, view: View, out: Builder
) -> ir.Value:
    wanted = operand(bundle, site.out, view, out)
    return out.one(op_type, value, wanted, name=f"{site.out.name}.{op_type}")


# by axes


def _mean_variance_layouts(site: Site) -> frozenset[Layout]:
    axes = _mean_variance_axes(site)
    ways = {each for each in both if AXIS[each] not in axes}
    return possible(site, ways)


def _mean_variance_axes(site: Site) -> Sequence[int]:
    x = site.given(0)
    need(x.is_tensor, "the rank of its input is not known")
    return [normal(axis, x.rank) for axis in site.numbers("axes") or (0, 2, 3)]


def _merge_mean_variance(site: Site, layout: Layout, out: Builder) -> None:
    made = out.copy(site, [out.merged(site.given(0), layout)])
    out.give_all(site, made, View(layout, True))


_CHANNELS = "parameters of all models, over all channels"
_FEATURES = "normalised without parameters, then scaled and shifted"

RULES = {
    "BatchNormalization": Rule(
        _channel_layouts, _merge_channels, f"folded into a convolution, or {_CHANNELS}"
    ),
    "GroupNormalization": Rule(_channel_layouts, _merge_channels, "groups of all models"),
    "InstanceNormalization": Rule(_channel_layouts, _merge_channels, _CHANNELS),
    "LayerNormalization": Rule(_feature_layouts, _merge_features, _FEATURES),
    "MeanVarianceNormalization": Rule(
        _mean_variance_layouts, _merge_mean_variance, "unchanged, on more channels or samples"
    ),
    "RMSNormalization": Rule(_feature_layouts, _merge_features, _FEATURES),
}
