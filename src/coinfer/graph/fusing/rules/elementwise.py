"""Elementwise operators: they stay as they are; operands that broadcast get an axis for M."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from coinfer.graph.fusing.builder import Builder, View
from coinfer.graph.fusing.bundle import Bundle
from coinfer.graph.fusing.layout import AXIS, Layout
from coinfer.graph.fusing.rule import Rule, both, need, possible
from coinfer.graph.fusing.site import Site

__all__ = ["RULES", "broadcast", "operand"]

_UNARY: Final = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil"),
    *("Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
    *("Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal"),
    *("Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus"),
    *("Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
)
_BROADCAST: Final = (
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal"),
    *("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul"),
    *("Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"),
)


def _unary_layouts(site: Site) -> frozenset[Layout]:
    return possible(site, both)


def _merge_unary(site: Site, layout: Layout, out: Builder) -> None:
    x = site.given(0)
    view = out.best([x], layout, can_merge=x.rank > AXIS[layout])
    rest = [None if each is None else out.shared(each) for each in site.inputs[1:]]
    out.give_all(site, out.copy(site, [out.view(x, view), *rest]), view)


def _broadcast_layouts(site: Site) -> frozenset[Layout]:
    operands = [bundle for bundle in site.inputs if bundle is not None]
    ways = set(possible(site, both, inputs=()))
    need(all(each.is_tensor for each in operands), "the rank of an operand is not known")
    if site.op_type == "PRelu":  # slopes broadcast to what they are of, not the other way round
        of_all = operands[0].is_shared and not operands[1].is_shared
        need(not of_all, "its slopes differ and its input does not")
    if Layout.PACKED in ways and not all(_can_pack(each, site.out) for each in operands):
        ways.discard(Layout.PACKED)
    return frozenset(ways)


def _can_pack(operand: Bundle, result: Bundle) -> bool:
    """Whether an operand can get an axis for M before the channels."""
    if operand.is_shared or operand.is_stored:
        return True
    return operand.rank == result.rank and operand.fits(Layout.PACKED)


def _merge_broadcast(site: Site, layout: Layout, out: Builder) -> None:
    operands = [bundle for bundle in site.inputs if bundle is not None]
    values, view = broadcast(operands, site.out, layout, out)
    out.give_all(site, out.copy(site, values), view)


def broadcast(
    operands: Sequence[Bundle], result: Bundle, layout: Layout, out: Builder
) -> tuple[list[ir.Value], View]:
    """Bring operands into a layout so that they broadcast to a result of all models.

    Args:
        operands: What is computed with.
        result: What comes out; gives rank and sizes.
        layout: One that the operands can have.
        out: Where values are made.

    Returns:
        The operands, and how the result lies.
    """
    at = AXIS[layout]
    merges = result.rank > at and all(_merges(each, result, at) for each in operands)
    own = [each for each in operands if not each.is_shared and not each.is_stored]
    view = out.best(own, layout, can_merge=merges)
    made = [operand(each, result, view, out) for each in operands]
    return made, view


def _behind(operand: Bundle, result: Bundle, at: int) -> int | str | None:
    """Size of an operand on an axis of the result; 1 where it has none."""
    assert operand.dims is not None
    index = at - (result.rank - operand.rank)
    return operand.dims[index] if 0 <= index < operand.rank else 1


def _merges(operand: Bundle, result: Bundle, at: int) -> bool:
    """Whether an operand can be had with the axis of M merged as in the result."""
    assert result.dims is not None
    size, wanted = _behind(operand, result, at), result.dims[at]
    if operand.is_shared:
        return size == 1 or (operand.is_stored and at == 1 and size == wanted is not None)
    if operand.is_stored:
        return at == 1 and isinstance(wanted, int)
    return operand.rank == result.rank and size == wanted is not None


def operand(bundle: Bundle, result: Bundle, view: View, out: Builder) -> ir.Value:
    """Bring one operand into a form that broadcasts to a result of all models."""
    at = AXIS[view.layout]
    reaches = bundle.rank > result.rank - at  # whether it has an axis where that of M goes
    if bundle.is_shared and (not bundle.is_stored or _behind(bundle, result, at) == 1):
        value = out.shared(bundle)
        needs_axis = reaches and not view.is_merged
        return out.unsqueeze(value, [at], bundle.name) if needs_axis else value
    if bundle.is_stored:
        return _stored(bundle, result, view, out)
    if view.is_merged:
        return out.merged(bundle, view.layout)
    return out.explicit(bundle, view.layout, result.rank)


def _stored(bundle: Bundle, result: Bundle, view: View, out: Builder) -> ir.Value:
    """Put stored operands together; merged, each has all channels then."""
    at = AXIS[view.layout]
    if not view.is_merged and bundle.is_shared:
        reaches = bundle.rank > result.rank - at
        array = bundle.arrays[0]
        return (
            out.constant(np.expand_dims(array, at), bundle.name) if reaches else out.shared(bundle)
        )
    if not view.is_merged:
        return out.explicit(bundle, view.layout, result.rank)
    channels = result.channels
    assert channels is not None
    wide = [each.reshape((1,) * (result.rank - each.ndim) + each.shape) for each in bundle.arrays]
    full = [np.repeat(a, channels, 1) if a.shape[1] != channels else a for a in wide]
    joined = np.concatenate(full, 1)
    return out.constant(joined[0] if joined.shape[0] == 1 else joined, bundle.name)


def _clip_layouts(site: Site) -> frozenset[Layout]:
    bounds = [bundle for bundle in site.inputs[1:] if bundle is not None]
    if all(bundle.is_shared for bundle in bounds):
        return possible(site, both)
    return frozenset(_broadcast_layouts(site))


def _merge_clip(site: Site, layout: Layout, out: Builder) -> None:
    """Bounds that differ become `Max` and `Min`: `Clip` takes one of each."""
    if all(bundle is None or bundle.is_shared for bundle in site.inputs[1:]):
        _merge_unary(site, layout, out)
        return
    given = [bundle for bundle in site.inputs if bundle is not None]
    (value, *bounds), view = broadcast(given, site.out, layout, out)
    for op_type, bound in zip(("Max", "Min"), site.inputs[1:], strict=False):
        if bound is not None:
            value = out.one(op_type, value, bounds.pop(0), name=f"{site.out.name}.{op_type}")
    out.give(site.out, value, view)


def _like_layouts(site: Site) -> frozenset[Layout]:
    need(site.given(1).is_tensor, "the type that it casts to is not known")
    return possible(site, both)


def _merge_like(site: Site, layout: Layout, out: Builder) -> None:
    """The second operand gives its type alone: one model's is enough."""
    x = site.given(0)
    view = out.best([x], layout, can_merge=x.rank > AXIS[layout])
    like = out.part(site.given(1), 0)
    out.give_all(site, out.copy(site, [out.view(x, view), like]), view)


def _dropout_layouts(site: Site) -> frozenset[Layout]:
    training = site.input(2)
    off = training is None or (site.constant(2) is not None and not np.any(site.constant(2)))
    need(off, "it draws random numbers")
    need(all(b is None or b.is_shared for b in site.inputs[1:]), "its settings differ")
    return possible(site, both)


_SAME = "unchanged, in either layout"

RULES = {
    **{name: Rule(_unary_layouts, _merge_unary, _SAME) for name in _UNARY},
    **{
        name: Rule(_broadcast_layouts, _merge_broadcast, "operands get an axis of M")
        for name in _BROADCAST
    },
    "CastLike": Rule(_like_layouts, _merge_like, _SAME),
    "Clip": Rule(_clip_layouts, _merge_clip, f"{_SAME}; as Max and Min where bounds differ"),
    "Dropout": Rule(_dropout_layouts, _merge_unary, f"{_SAME}, unless it draws"),
}
