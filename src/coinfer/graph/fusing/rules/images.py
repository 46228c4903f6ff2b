"""Operators on images: pooling, padding, resizing. Channels and samples do not mix in them."""

from __future__ import annotations

import numpy as np

from coinfer.graph.fusing.builder import Builder, View
from coinfer.graph.fusing.layout import AXIS, Layout
from coinfer.graph.fusing.rule import Rule, both, need, possible, stacked
from coinfer.graph.fusing.rules.axes import constant_axes, normal
from coinfer.graph.fusing.site import Site

__all__ = ["RULES"]


def _pool_layouts(site: Site) -> frozenset[Layout]:
    need(len(site.outputs) == 1 or site.outputs[1] is None, "its indices count over all samples")
    return possible(site, both)


def _merge_merged(site: Site, layout: Layout, out: Builder) -> None:
    """Let it work on more samples or more channels."""
    x = out.merged(site.given(0), layout)
    rest = [None if each is None else out.shared(each) for each in site.inputs[1:]]
    out.give_all(site, out.copy(site, [x, *rest]), View(layout, True))


def _sample_layouts(site: Site) -> frozenset[Layout]:
    return possible(site, stacked, inputs=range(len(site.inputs)))


def _merge_samples(site: Site, layout: Layout, out: Builder) -> None:
    """Let it work on more samples, all of its inputs having as many."""
    operands = [None if each is None else out.merged(each, layout) for each in site.inputs]
    out.give_all(site, out.copy(site, operands), View(layout, True))


# Pad


def _pads(site: Site) -> tuple[list[int], list[int]]:
    """Axes, and what is added before and behind each."""
    x = site.given(0)
    need(x.is_tensor, "the rank of its input is not known")
    found = site.constant(1) if site.input(1) is not None else site.numbers("pads")
    need(found is not None, "what it adds is not stored")
    assert found is not None
    need(site.input(2) is None or site.given(2).is_shared, "what it fills with differs")
    axes = constant_axes(site, 3)
    chosen = range(x.rank) if axes is None else [normal(axis, x.rank) for axis in axes]
    return list(chosen), [int(each) for each in found]


def _pad_layouts(site: Site) -> frozenset[Layout]:
    _pads(site)
    return possible(site, both)


def _merge_pad(site: Site, layout: Layout, out: Builder) -> None:
    x, at = site.given(0), AXIS[layout]
    axes, pads = _pads(site)
    count = len(axes)
    full = np.zeros((2, x.rank), np.int64)
    for place, axis in enumerate(axes):
        full[0, axis], full[1, axis] = pads[place], pads[count + place]
    stays = x.rank > at and not full[:, at].any()
    view = out.best([x], layout, can_merge=stays)
    if not view.is_merged:
        full = np.insert(full, at, 0, axis=1)
    value, moved = out.view(x, view), full.ravel()
    if site.input(1) is None:
        out.give_all(site, out.copy(site, [value], pads=[int(each) for each in moved]), view)
        return
    fill = [] if site.input(2) is None else [out.shared(site.given(2))]
    out.give_all(site, out.copy(site, [value, out.constant(moved, "pads"), *fill]), view)


# Resize


def _resize_layouts(site: Site) -> frozenset[Layout]:
    x = site.given(0)
    need(x.is_tensor, "the rank of its input is not known")
    given = [each for each in site.inputs[1:] if each is not None]
    need(all(each.is_shared for each in given), "its sizes differ between the models")
    mode = site.node.attributes.get_string("coordinate_transformation_mode", "")
    need(mode != "tf_crop_and_resize", "it crops")
    policy = site.node.attributes.get_string("keep_aspect_ratio_policy", "stretch")
    need(policy == "stretch", "it keeps the ratio of sizes")
    axes = site.numbers("axes")
    if axes is not None:
        resized = {normal(axis, x.rank) for axis in axes}
        return possible(site, {each for each in both if AXIS[each] not in resized})
    return possible(site, {each for each in both if _stays(site, AXIS[each])})


def _stays(site: Site, axis: int) -> bool:
    """Whether the size of an axis stays: that of samples or channels mostly does."""
    x, y = site.given(0), site.out
    if y.dims is None or x.dims is None or axis >= x.rank:
        return False
    scales = site.constant(_scales_at(site))
    if scales is not None and len(scales):
        return float(scales[axis]) == 1.0
    return x.dims[axis] == y.dims[axis] and x.dims[axis] is not None


def _scales_at(site: Site) -> int:
    return 1 if site.op_type == "Upsample" or site.opset < 11 else 2


def _merge_resize(site: Site, layout: Layout, out: Builder) -> None:
    """Sizes count samples and channels too, so these are multiplied."""
    x = out.merged(site.given(0), layout)
    rest = [None if each is None else out.shared(each) for each in site.inputs[1:]]
    sizes = site.input(3)
    if sizes is not None and site.numbers("axes") is None:
        factors = [1] * site.given(0).rank
        factors[AXIS[layout]] = site.models
        by = out.constant(factors, "factors")
        rest[2] = out.one("Mul", rest[2], by, name=f"{site.out.name}.sizes")
    out.give_all(site, out.copy(site, [x, *rest]), View(layout, True))


_MORE = "unchanged, on more channels or samples"

RULES = {
    **{
        name: Rule(_pool_layouts, _merge_merged, _MORE)
        for name in (
            *("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool"),
            "MaxPool",
        )
    },
    **{
        name: Rule(_sample_layouts, _merge_samples, "unchanged, on more samples")
        for name in ("DepthToSpace", "GridSample", "LRN", "SpaceToDepth")
    },
    "Pad": Rule(_pad_layouts, _merge_pad, "on a view that keeps M explicit"),
    "Resize": Rule(_resize_layouts, _merge_resize, f"{_MORE}; sizes are multiplied"),
    "Upsample": Rule(_resize_layouts, _merge_resize, _MORE),
}
