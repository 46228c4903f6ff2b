"""Quantised networks: scales of all models along the axis of M or of channels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from coinfer.graph.fusing.builder import Builder, View
from coinfer.graph.fusing.bundle import Bundle
from coinfer.graph.fusing.layout import AXIS, Layout
from coinfer.graph.fusing.rule import Rule, both, need, possible, stacked
from coinfer.graph.fusing.rules.axes import normal
from coinfer.graph.fusing.site import Site

__all__ = ["RULES"]

_BY_AXIS = 13
"""Scales along an axis exist from this opset on."""


def _settings(site: Site) -> list[Bundle]:
    return [each for each in site.inputs[1:] if each is not None]


def _linear_layouts(site: Site) -> frozenset[Layout]:
    x, scale = site.given(0), site.given(1)
    need(x.is_tensor and scale.is_tensor, "the rank of an input is not known")
    need(not site.number("block_size", 0), "it has a scale per block")
    per_tensor = scale.dims in ((), (1,))
    if all(each.is_shared for each in _settings(site)):
        if per_tensor:
            return possible(site, both)
        axis = normal(site.number("axis", 1), x.rank)
        return possible(site, {each for each in both if AXIS[each] != axis})
    need(site.opset >= _BY_AXIS, f"its scales differ, which needs opset {_BY_AXIS}")
    if per_tensor:
        stored = all(each.is_stored for each in _settings(site))
        return possible(site, both if stored else stacked)
    axis = normal(site.number("axis", 1), x.rank)
    need(axis < 2, "it has scales of its own along another axis than the first two")
    return possible(site, stacked if axis == 0 else {Layout.PACKED})


def _merge_linear(site: Site, layout: Layout, out: Builder) -> None:
    x, scale = site.given(0), site.given(1)
    per_tensor = scale.dims in ((), (1,))
    at = AXIS[layout]
    if all(each.is_shared for each in _settings(site)):
        view = out.best([x], layout, can_merge=x.rank > at)
        rest = [None if each is None else out.shared(each) for each in site.inputs[1:]]
        axis = normal(site.number("axis", 1), x.rank)
        moved = {} if per_tensor else {"axis": axis + (not view.is_merged and axis >= at)}
        out.give_all(site, out.copy(site, [out.view(x, view), *rest], **moved), view)
        return
    if not per_tensor:
        view = View(layout, True)
        rest = [
            None if each is None else out.merged(each, Layout.STACKED) for each in site.inputs[1:]
        ]
    elif layout is Layout.STACKED:
        view = View(layout, False)
        rest = [None if each is None else _row(each, out) for each in site.inputs[1:]]
    else:
        view = View(layout, True)
        channels = x.channels
        assert channels is not None
        rest = [
            None
            if each is None
            else out.constant(
                np.repeat(np.concatenate([a.reshape(1) for a in each.arrays]), channels), each.name
            )
            for each in site.inputs[1:]
        ]
    out.give_all(site, out.copy(site, [out.view(x, view), *rest], axis=at), view)


def _row(bundle: Bundle, out: Builder) -> ir.Value:
    """One number of each model."""
    if bundle.is_stored:
        return out.constant(np.concatenate([a.reshape(1) for a in bundle.arrays]), bundle.name)
    return out.reshape(out.explicit(bundle, Layout.STACKED), [-1], bundle.name)


def _convolution_layouts(site: Site) -> frozenset[Layout]:
    """Scales and zero points of what goes in and out must agree; weights may have their own."""
    fixed = [site.given(index) for index in (1, 2, 6, 7)]
    need(all(each.is_shared for each in fixed), "its scales differ")
    weights = [site.input(index) for index in (3, 4, 5, 8)]
    need(all(each is None or each.is_tensor for each in weights), "a rank is not known")
    is_stored = all(each is None or each.is_stored for each in weights[1:3])
    if all(each is None or each.is_shared for each in weights):
        return possible(site, both if is_stored else {Layout.STACKED})
    need(is_stored, "its scales are computed")
    return possible(site, {Layout.PACKED})


def _merge_convolution(site: Site, layout: Layout, out: Builder) -> None:
    operands = [
        None if each is None or i in (0, 3, 4, 5, 8) else out.shared(each)
        for i, each in enumerate(site.inputs)
    ]
    operands[0] = out.merged(site.given(0), layout)
    for index in (3, 4, 5, 8):
        bundle = site.input(index)
        if bundle is None:
            continue
        if layout is Layout.STACKED:
            operands[index] = out.shared(bundle)
        elif index in (4, 5):
            channels = site.given(3).dims
            assert channels is not None
            operands[index] = _per_channel(bundle, int(channels[0] or 1), out)
        else:
            operands[index] = out.merged(bundle, Layout.STACKED)
    groups = site.number("group", 1) * (site.models if layout is Layout.PACKED else 1)
    out.give_all(site, out.copy(site, operands, group=groups), View(layout, True))


def _per_channel(bundle: Bundle, channels: int, out: Builder) -> ir.Value:
    rows = [np.broadcast_to(each.reshape(-1), (channels,)) for each in bundle.arrays]
    return out.constant(np.concatenate(rows), bundle.name)


_BY_MODEL = "scales of all models along the axis of M or of channels"

RULES = {
    "DequantizeLinear": Rule(_linear_layouts, _merge_linear, _BY_MODEL),
    "QLinearConv": Rule(
        _convolution_layouts, _merge_convolution, "groups of all models; activations' scales agree"
    ),
    "QuantizeLinear": Rule(_linear_layouts, _merge_linear, _BY_MODEL),
}
