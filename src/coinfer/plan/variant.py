"""Variant: one graph that answers requests of a model, how it is cut, and what is loaded where.

A value; it knows no graph. Operators are named by their index in the graph's topological order
(`coinfer.graph.operators`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from coinfer.machine.span import Fork, Span

__all__ = ["GraphFile", "Kind", "Unit", "Variant"]


class Kind(StrEnum):
    """How a variant relates to the model that the user gave.

    Members:
        ORIGINAL: The model itself.
    """

    ORIGINAL = "original"


class GraphFile(NamedTuple):
    """A graph that is kept beside the plan, because it is dear to make again.

    Attributes:
        path: Its file, relative to the plan's folder.
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
    """

    kind: Kind = Kind.ORIGINAL
    graph: GraphFile | None = None
    n_units: int = 1
    units: tuple[Unit, ...] = ()
    forks: tuple[Fork, ...] = ()
    spans: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
