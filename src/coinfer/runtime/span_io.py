"""Span inputs and outputs: what a span of a model reads, makes and keeps. Names, no arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from coinfer.graph.cut_model import CutModel
from coinfer.graph.fusing.member import Member
from coinfer.machine.span import Span
from coinfer.model import Model, TensorSpec
from coinfer.model.inputs import open_axes

__all__ = ["SpanIO", "span_ios_of"]


class SpanIO(NamedTuple):
    """What a span takes from a request's values, and what it leaves.

    Attributes:
        reads: Names that the span's session takes.
        keeps: Names of the values that are needed after it; after the last span, the outputs.
        batched: Those of `reads` that have a batch axis, so that requests can be stacked.
        batched_writes: Those of what it makes that have one.
        stacks: Whether one run can serve several requests: all other values that it reads or makes
            are the same whatever is in the batch.
        is_last: Whether the request is done after it.
        is_whole: Whether it is the whole model: then it reads what the request brings.
        writes: Names of what it makes.
        slots: Of a fused variant, by model that it answers for, what that calls the values here.
        padding: Of inputs that may be padded so that requests of unequal sizes can be stacked, the
            axes and what is filled in.
        trimming: Of outputs, the axes that are cut back then, each to the size of this axis of this
            input.
        may_differ: Whether what it reads may have another batch than its request: a default has.
    """

    reads: tuple[str, ...]
    keeps: tuple[str, ...]
    batched: frozenset[str]
    batched_writes: frozenset[str]
    stacks: bool
    is_last: bool
    is_whole: bool
    may_differ: bool = False
    writes: tuple[str, ...] = ()
    slots: Mapping[str, Member] = MappingProxyType({})
    padding: Mapping[str, tuple[tuple[int, ...], float]] = MappingProxyType({})
    trimming: Mapping[str, Mapping[int, tuple[str, int]]] = MappingProxyType({})


def span_ios_of(cut: CutModel) -> Mapping[Span, SpanIO]:
    """Return what each span that is used takes and leaves."""
    symbol = cut.model.batch_symbol
    varying = _varying(cut, symbol)
    span_ios = {}
    for span, piece in cut.pieces.items():
        reads, writes = piece.model.inputs, piece.model.outputs
        stacked = _batched([*reads, *writes], symbol)
        span_ios[span] = SpanIO(
            reads=tuple(spec.name for spec in reads),
            keeps=piece.keeps,
            batched=_batched(reads, symbol),
            batched_writes=_batched(writes, symbol),
            stacks=all(s.name in stacked or s.name not in varying for s in (*reads, *writes)),
            is_last=span.last == cut.units - 1,
            is_whole=cut.units == 1,
            may_differ=bool(cut.model.defaults),
            writes=tuple(spec.name for spec in writes),
        )
    if cut.units == 1 and cut.model.padding:
        span_ios = {span: _with_padding(each, cut.model) for span, each in span_ios.items()}
    return span_ios


def _with_padding(span_io: SpanIO, model: Model) -> SpanIO:
    """Return what a whole model takes and leaves with the axes along which it may be padded."""
    padding, trimming = {}, {}
    for spec in model.inputs:
        axes = tuple(axis for axis, dim in open_axes(spec) if dim in model.padding)
        if axes:
            dim = next(dim for _, dim in open_axes(spec) if dim in model.padding)
            padding[spec.name] = axes, model.padding[dim][spec.name]
    for spec in model.outputs:
        cuts = {
            axis: model.open_dims[dim]
            for axis, dim in enumerate(spec.shape)
            if isinstance(dim, str) and dim in model.padding
        }
        if cuts:
            trimming[spec.name] = cuts
    return span_io._replace(padding=padding, trimming=trimming)


def _varying(cut: CutModel, symbol: str | None) -> frozenset[str]:
    """Names of values that follow from what is in the batch, if a span hands on one without it.

    To tell, the graph must be built, which takes a while and the memory of its weights.
    """
    pieces = [piece.model for piece in cut.pieces.values()]
    specs = [spec for model in pieces for spec in (*model.inputs, *model.outputs)]
    if symbol is None or len(_batched(specs, symbol)) == len({spec.name for spec in specs}):
        return frozenset()
    from coinfer.graph.operators import followers  # needs the heavy libraries

    open_inputs = [spec.name for spec in cut.model.inputs if symbol in spec.shape]
    return followers(cut.model.graph, open_inputs)


def _batched(specs: Iterable[TensorSpec], symbol: str | None) -> frozenset[str]:
    """Names of the values whose first axis is the batch."""
    if symbol is None:
        return frozenset()
    return frozenset(spec.name for spec in specs if spec.shape[:1] == (symbol,))
