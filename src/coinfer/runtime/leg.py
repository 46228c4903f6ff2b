"""Leg: one span of a model that is cut, as a request goes through it. Knows names, not arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from coinfer.model import Model
from coinfer.partitioning.partitioned import Partitioned
from coinfer.profiles import Span

__all__ = ["Leg", "batched_inputs", "legs_of"]


class Leg(NamedTuple):
    """What a span takes from a request's values, and what it leaves.

    Attributes:
        reads: Names that the span's session takes.
        keeps: Names of the values that are needed after it; after the last leg, the outputs.
        batched: Those of `reads` that have a batch axis, so that requests can be stacked.
        is_last: Whether the request is done after it.
    """

    reads: tuple[str, ...]
    keeps: tuple[str, ...]
    batched: frozenset[str]
    is_last: bool


def legs_of(cut: Partitioned) -> Mapping[Span, Leg]:
    """Return the leg of each span that is used."""
    symbol = cut.model.batch_symbol
    return {
        span: Leg(
            reads=tuple(spec.name for spec in piece.model.inputs),
            keeps=piece.keeps,
            batched=batched_inputs(piece.model, symbol),
            is_last=span.last == cut.units - 1,
        )
        for span, piece in cut.pieces.items()
    }


def batched_inputs(model: Model, symbol: str | None) -> frozenset[str]:
    """Names of the inputs whose first axis is the batch."""
    if symbol is None:
        return frozenset()
    return frozenset(spec.name for spec in model.inputs if spec.shape[:1] == (symbol,))
