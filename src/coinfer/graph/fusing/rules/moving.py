"""Operators that move data: reshaped, permuted, cut and joined on a view that keeps M explicit."""

from __future__ import annotations

from math import prod

import numpy as np

from coinfer.graph.fusing.builder import Builder, View
from coinfer.graph.fusing.bundle import Bundle
from coinfer.graph.fusing.layout import AXIS, Layout
from coinfer.graph.fusing.rule import Rule, both, need, possible, stacked
from coinfer.graph.fusing.rules.axes import (
    axis_view,
    constant_axes,
    normal,
    shifted,
    with_ones,
)
from coinfer.graph.fusing.site import Site

__all__ = ["RULES"]


def _x(site: Site) -> Bundle:
    x = site.given(0)
    need(x.is_tensor, "the rank of its input is not known")
    return x


# Reshape and Flatten


def _keeps_samples(site: Site) -> bool:
    """Whether all but the first axis is reshaped, to sizes that are known."""
    x, y = _x(site), site.out
    if y.dims is None or min(x.rank, y.rank) < 2:
        return False
    assert x.dims is not None
    rest_x, rest_y = x.dims[1:], y.dims[1:]
    known = all(isinstance(size, int) and size for size in (*rest_x, *rest_y))
    same = x.dims[0] == y.dims[0] and x.dims[0] is not None
    return known and same and prod(map(int, rest_x)) == prod(map(int, rest_y))  # type: ignore[arg-type]


def _reshape_layouts(site: Site) -> frozenset[Layout]:
    need(site.given(1).is_shared, "its shape differs between the models")
    return possible(site, both if _keeps_samples(site) else stacked)


def _merge_reshape(site: Site, layout: Layout, out: Builder) -> None:
    if _merge_rest(site, layout, out):
        return
    shape = site.constant(1)
    x = out.explicit(site.given(0), Layout.STACKED)
    if shape is None:
        wanted = with_ones(out.shared(site.given(1)), [site.models], out, f"{site.out.name}.shape")
    else:
        wanted = out.constant([site.models, *map(int, shape)], "shape")
    out.give_all(site, out.copy(site, [x, wanted]), View(layout, False))


def _merge_rest(site: Site, layout: Layout, out: Builder) -> bool:
    """Reshape what is behind the first axis, if that is all that is to be done."""
    x, y = site.given(0), site.out
    if not _keeps_samples(site):
        return False
    assert y.dims is not None
    rest = [int(size) for size in y.dims[1:] if isinstance(size, int)]
    if layout is Layout.PACKED:
        rest[0] *= site.models
    made = out.reshape(out.merged(x, layout), [0, *rest], y.name)
    out.give(y, made, View(layout, True))
    return True


def _flatten_layouts(site: Site) -> frozenset[Layout]:
    x = _x(site)
    axis = normal(site.number("axis", 1), x.rank) if x.rank else 0
    return possible(site, both if axis == 1 and x.rank > 1 else stacked)


def _merge_flatten(site: Site, layout: Layout, out: Builder) -> None:
    x = site.given(0)
    axis = normal(site.number("axis", 1), x.rank) if x.rank else 0
    if axis > 0:
        made = out.copy(site, [out.merged(x, layout)], axis=axis)
        out.give_all(site, made, View(layout, True))
        return
    wide = out.reshape(out.explicit(x, layout), [site.models, 1, -1], site.out.name)
    out.give(site.out, wide, View(layout, False))


# Transpose, Squeeze, Unsqueeze


def _order(site: Site) -> tuple[int, ...]:
    return site.numbers("perm") or tuple(reversed(range(_x(site).rank)))


def _transpose_layouts(site: Site) -> frozenset[Layout]:
    order = _order(site)
    return possible(site, both if order[:1] == (0,) else stacked)


def _merge_transpose(site: Site, layout: Layout, out: Builder) -> None:
    x, order, at = site.given(0), _order(site), AXIS[layout]
    stays = tuple(order[: at + 1]) == tuple(range(at + 1)) and x.rank > at
    view = out.best([x], layout, can_merge=stays)
    moved = list(order)
    if not view.is_merged:
        moved = shifted(order, view)
        moved.insert(at, at)
    out.give_all(site, out.copy(site, [out.view(x, view)], perm=moved), view)


def _squeezed(site: Site) -> tuple[int, ...]:
    x = _x(site)
    axes = constant_axes(site, 1)
    if axes is not None:
        return tuple(normal(axis, x.rank) for axis in axes)
    assert x.dims is not None
    need(all(isinstance(size, int) for size in x.dims), "which axes it removes is not known")
    return tuple(axis for axis, size in enumerate(x.dims) if size == 1)


def _squeeze_layouts(site: Site) -> frozenset[Layout]:
    return possible(site, stacked if 0 in _squeezed(site) else both)


def _unsqueezed(site: Site) -> tuple[int, ...]:
    axes = constant_axes(site, 1)
    need(axes is not None, "it names no axes")
    assert axes is not None
    return tuple(normal(axis, _x(site).rank + len(axes)) for axis in axes)


def _unsqueeze_layouts(site: Site) -> frozenset[Layout]:
    return possible(site, stacked if 0 in _unsqueezed(site) else both)


def _merge_axes(site: Site, layout: Layout, out: Builder) -> None:
    """Squeeze or unsqueeze."""
    x, squeezes = site.given(0), site.op_type == "Squeeze"
    axes = _squeezed(site) if squeezes else _unsqueezed(site)
    at = AXIS[layout]
    beyond = all(axis > at for axis in axes) and x.rank > at
    view = out.best([x], layout, can_merge=beyond)
    change = out.squeeze if squeezes else out.unsqueeze
    value = out.view(x, view)
    made = change(value, shifted(axes, view), site.out.name) if axes else value
    out.give(site.out, made, view)


# Slice, Split, Concat, Expand, Tile


def _sliced(site: Site) -> tuple[int, ...]:
    x = _x(site)
    axes = constant_axes(site, 3)
    if axes is None:
        starts = site.numbers("starts") if site.input(1) is None else site.given(1).dims
        need(starts and isinstance(starts[0], int), "how many axes it cuts is not known")
        count = len(starts) if site.input(1) is None else starts[0]  # type: ignore[arg-type,index]
        axes = tuple(range(int(count)))  # type: ignore[arg-type]
    return tuple(normal(axis, x.rank) for axis in axes)


def _slice_layouts(site: Site) -> frozenset[Layout]:
    _sliced(site)
    need(all(each is None or each.is_shared for each in site.inputs[1:]), "its bounds differ")
    return possible(site, both)


def _merge_slice(site: Site, layout: Layout, out: Builder) -> None:
    x, axes = site.given(0), _sliced(site)
    view = axis_view([x], axes, layout, out)
    value, moved = out.view(x, view), shifted(axes, view)
    if site.input(1) is None:
        out.give_all(site, out.copy(site, [value], axes=moved), view)
        return
    rest = [None if each is None else out.shared(each) for each in site.inputs[1:]]
    dtype = site.given(1).values[0].dtype  # that of bounds and axes is one
    assert dtype is not None
    rest[2:3] = [out.constant(np.array(moved, dtype.numpy()), "axes")]
    out.give_all(site, out.copy(site, [value, *rest]), view)


def _split_layouts(site: Site) -> frozenset[Layout]:
    _x(site)
    need(all(each is None or each.is_shared for each in site.inputs[1:]), "its sizes differ")
    return possible(site, both)


def _merge_split(site: Site, layout: Layout, out: Builder) -> None:
    x = site.given(0)
    axis = normal(site.number("axis", 0), x.rank)
    view = axis_view([x], [axis], layout, out)
    rest = [None if each is None else out.shared(each) for each in site.inputs[1:]]
    (moved,) = shifted([axis], view)
    out.give_all(site, out.copy(site, [out.view(x, view), *rest], axis=moved), view)


def _concat_layouts(site: Site) -> frozenset[Layout]:
    given = range(len(site.inputs))
    need(all(each is not None and each.is_tensor for each in site.inputs), "a rank is not known")
    return possible(site, both, inputs=given)


def _merge_concat(site: Site, layout: Layout, out: Builder) -> None:
    operands = [each for each in site.inputs if each is not None]
    axis = normal(site.number("axis", 1), operands[0].rank)
    view = axis_view(operands, [axis], layout, out)
    (moved,) = shifted([axis], view)
    made = out.copy(site, [out.view(each, view) for each in operands], axis=moved)
    out.give_all(site, made, view)


def _expand_layouts(site: Site) -> frozenset[Layout]:
    _x(site)
    need(site.given(1).is_shared, "its shape differs between the models")
    length = site.given(1).dims
    need((length and isinstance(length[0], int)) or length == (0,), "its rank is not known")
    return possible(site, stacked)


def _merge_expand(site: Site, layout: Layout, out: Builder) -> None:
    x, shape = site.given(0), site.given(1)
    assert shape.dims is not None
    length = shape.dims[0]
    assert isinstance(length, int)
    rank = max(x.rank, length)
    front = [site.models, *(1,) * (rank - length)]
    wanted = with_ones(out.shared(shape), front, out, f"{site.out.name}.shape")
    made = out.copy(site, [out.explicit(x, layout, rank), wanted])
    out.give_all(site, made, View(layout, False))


def _tile_layouts(site: Site) -> frozenset[Layout]:
    _x(site)
    need(site.given(1).is_shared, "its repeats differ between the models")
    return possible(site, stacked)


def _merge_tile(site: Site, layout: Layout, out: Builder) -> None:
    repeats = with_ones(out.shared(site.given(1)), [1], out, f"{site.out.name}.repeats")
    made = out.copy(site, [out.explicit(site.given(0), layout), repeats])
    out.give_all(site, made, View(layout, False))


_ON_VIEW = "on a view that keeps M explicit"

RULES = {
    "Concat": Rule(_concat_layouts, _merge_concat, _ON_VIEW),
    "Expand": Rule(_expand_layouts, _merge_expand, _ON_VIEW),
    "Flatten": Rule(_flatten_layouts, _merge_flatten, _ON_VIEW),
    "Reshape": Rule(_reshape_layouts, _merge_reshape, _ON_VIEW),
    "Slice": Rule(_slice_layouts, _merge_slice, _ON_VIEW),
    "Split": Rule(_split_layouts, _merge_split, _ON_VIEW),
    "Squeeze": Rule(_squeeze_layouts, _merge_axes, _ON_VIEW),
    "Tile": Rule(_tile_layouts, _merge_tile, _ON_VIEW),
    "Transpose": Rule(_transpose_layouts, _merge_transpose, _ON_VIEW),
    "Unsqueeze": Rule(_unsqueeze_layouts, _merge_axes, _ON_VIEW),
}
