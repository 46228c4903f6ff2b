"""Convolutions: one with the groups of all models; shared weights take all samples in one batch."""

from __future__ import annotations

from coinfer.graph.fusing.builder import Builder, View
from coinfer.graph.fusing.layout import Layout
from coinfer.graph.fusing.rule import Rule, possible
from coinfer.graph.fusing.site import Site

__all__ = ["RULES"]


def _layouts(site: Site) -> frozenset[Layout]:
    weights = [bundle for bundle in site.inputs[1:] if bundle is not None]
    ways = {Layout.PACKED}
    if all(bundle.is_shared for bundle in weights):
        ways.add(Layout.STACKED)
    return possible(site, ways)


def _merge(site: Site, layout: Layout, out: Builder) -> None:
    x = out.merged(site.given(0), layout)
    if layout is Layout.STACKED:
        weights = [None if each is None else out.shared(each) for each in site.inputs[1:]]
        made = out.copy(site, [x, *weights])
    else:
        # Weights count output channels of all groups on their first axis: these are joined.
        weights = [
            None if each is None else out.merged(each, Layout.STACKED) for each in site.inputs[1:]
        ]
        made = out.copy(site, [x, *weights], group=site.number("group", 1) * site.models)
    out.give_all(site, made, View(layout, True))


def _deformable_layouts(site: Site) -> frozenset[Layout]:
    return possible(site, {Layout.PACKED}, inputs=(0, 2, 4))


def _merge_deformable(site: Site, layout: Layout, out: Builder) -> None:
    on_channels = (Layout.PACKED, Layout.STACKED, Layout.PACKED, Layout.STACKED, Layout.PACKED)
    operands = [
        None if each is None else out.merged(each, where)
        for each, where in zip(site.inputs, on_channels, strict=False)
    ]
    counts = {key: site.number(key, 1) * site.models for key in ("group", "offset_group")}
    out.give_all(site, out.copy(site, operands, **counts), View(layout, True))


def _integer_layouts(site: Site) -> frozenset[Layout]:
    """Without the zero points of weights, which may be one for all or one per channel."""
    scalars = [site.input(index) for index in (2, 3)]
    if all(each is None or (each.is_shared and each.dims in ((), (1,))) for each in scalars):
        ways = {Layout.PACKED}
        if site.given(1).is_shared:
            ways.add(Layout.STACKED)
        return possible(site, ways)
    return frozenset()


def _merge_integer(site: Site, layout: Layout, out: Builder) -> None:
    weight = site.given(1)
    is_batch = layout is Layout.STACKED
    operands = [
        out.merged(site.given(0), layout),
        out.shared(weight) if is_batch else out.merged(weight, Layout.STACKED),
        *(None if each is None else out.shared(each) for each in site.inputs[2:]),
    ]
    groups = site.number("group", 1) * (1 if is_batch else site.models)
    out.give_all(site, out.copy(site, operands, group=groups), View(layout, True))


_GROUPED = "groups of all models in one; shared weights: one batch"

RULES = {
    "Conv": Rule(_layouts, _merge, _GROUPED),
    "ConvInteger": Rule(_integer_layouts, _merge_integer, f"{_GROUPED}; zero points must agree"),
    "ConvTranspose": Rule(_layouts, _merge, _GROUPED),
    "DeformConv": Rule(_deformable_layouts, _merge_deformable, "groups of all models in one"),
}
