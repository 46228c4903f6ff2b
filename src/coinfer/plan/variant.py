"""Variant: one graph that answers requests of a model, how it is cut, and what is loaded where.

A value; it knows no graph. Operators are named by their index in the graph's topological order
(`coinfer.graph.operators`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from coinfer.machine.batching import Batching
from coinfer.machine.span import Fork, Span
from coinfer.machine.variant_use import Use

__all__ = ["GraphFile", "Kind", "Unit", "Variant", "variant_name"]


class Kind(StrEnum):
    """How a variant relates to the model that the user gave.

    Members:
        ORIGINAL: The model itself.
        COMPRESSED: Fewer operations, with a stated output error.
        INT8: Quantised, with a stated output error.
    """

    ORIGINAL = "original"
    COMPRESSED = "compressed"
    INT8 = "int8"


def variant_name(model: str, kind: Kind) -> str:
    """Return what profiles and executions call a variant; no model can have such a name.

    >>> variant_name("front", Kind.ORIGINAL), variant_name("front", Kind.COMPRESSED)
    ('front', 'front@compressed')
    """
    return model if kind is Kind.ORIGINAL else f"{model}@{kind}"


class GraphFile(NamedTuple):
    """A graph that is kept beside the plan, because it is dear to make again.

    Attributes:
        path: Its file, relative to the plan's folder once the plan is saved.
        sha256: Checksum of the file.
    """

    path: str
    sha256: str


class Unit(NamedTuple):
    """The operators of one unit subgraph.

    Attributes:
        operators: Their indices, ascending.
        first: Name of the first of them.
    """

    operators: tuple[int, ...]
    first: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One graph that answers requests of a model.

    Attributes:
        kind: How it relates to what the user gave.
        graph: Its file; None: it is what the model's source says.
        n_units: Number of unit subgraphs; spans count in them.
        units: Their operators; empty if it is not cut, or if nobody knows the graph.
        forks: Pairs of spans that may run at the same time.
        spans: What is loaded, by processor. A processor that is not listed loads nothing.
        error: How far its outputs are off those of the original, ||out - ref|| / ||ref||, on
            samples that nothing was chosen with.
        use: When it serves; of the original that says nothing.
        batching: Of one that is no original, how far requests may share its executions.
    """

    kind: Kind = Kind.ORIGINAL
    graph: GraphFile | None = None
    n_units: int = 1
    units: tuple[Unit, ...] = ()
    forks: tuple[Fork, ...] = ()
    spans: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    error: float = 0.0
    use: Use = Use.ALWAYS
    batching: Batching | None = None

    @property
    def may_serve(self) -> bool:
        """Whether it is loaded, to answer requests."""
        return bool(self.spans) and self.use is not Use.NEVER
