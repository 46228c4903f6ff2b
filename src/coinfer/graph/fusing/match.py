"""Match: which operators of several graphs correspond, and where the graphs part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from coinfer.errors import ModelError
from coinfer.graph.fusing.difference import difference_of, inputs_differ
from coinfer.graph.fusing.prepared import prepared
from coinfer.graph.fusing.signature import Signatures, digest
from coinfer.model import Model

__all__ = ["Match", "architecture_of", "match"]

_LEAST_SHARE = 0.5
"""Models of which less corresponds are no fine-tuned copies with heads of their own."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Match:
    """Several graphs and what corresponds in them.

    Attributes:
        names: Of the models, in the order given.
        models: Their prepared graphs.
        nodes: Operators that correspond, one of each model, in topological order.
        rest: Per model the operators of its own, in topological order.
        difference: Where the models part, in words; empty if they have the same architecture.
    """

    names: tuple[str, ...]
    models: tuple[ir.Model, ...] = field(repr=False)
    nodes: tuple[tuple[ir.Node, ...], ...] = field(repr=False)
    rest: tuple[tuple[ir.Node, ...], ...] = field(repr=False)
    difference: str


def architecture_of(model: Model) -> str:
    """Return a digest that two models share if and only if they can be fused as a whole.

    Values of weights do not count, nor do names. It differs from the `structure` of a fingerprint:
    attributes that spell out a default do not count, and stored integers count only where they
    carry structure.

    Raises:
        ModelError: the graph cannot be read.

    >>> from coinfer.testing.models import tiny_linear
    >>> architecture_of(tiny_linear("a").model) == architecture_of(tiny_linear("b").model)
    True
    """
    (graph,) = prepared([model])
    return _digest(Signatures.make(graph), graph)


def match(models: Sequence[Model], names: Sequence[str]) -> Match:
    """Find out what corresponds in models.

    Args:
        models: At least one, all valid.
        names: What messages call them.

    Raises:
        ModelError: they do not take the same inputs, or less than half of the operators of one of
            them corresponds: names the first operator that differs.
    """
    graphs = prepared(models)
    signed = [Signatures.make(graph) for graph in graphs]
    for name, other in zip(names[1:], graphs[1:], strict=True):
        problem = inputs_differ(names[0], graphs[0], name, other)
        if problem:
            raise ModelError(f"{problem}; {_REMEDY}")
    common = set(signed[0].of.values()).intersection(*(each.of.values() for each in signed[1:]))
    by_signature = [{key: node for node, key in each.of.items()} for each in signed]
    nodes = tuple(
        tuple(each[signed[0].of[node]] for each in by_signature)
        for node in graphs[0].graph
        if signed[0].of.get(node) in common
    )
    rest = tuple(
        tuple(node for node in graph.graph if node in each.of and each.of[node] not in common)
        for graph, each in zip(graphs, signed, strict=True)
    )
    difference = _first_difference(names, graphs, signed)
    if difference and len(nodes) < _LEAST_SHARE * max(len(nodes) + len(each) for each in rest):
        raise ModelError(f"{difference}; {_REMEDY}")
    return Match(names=tuple(names), models=graphs, nodes=nodes, rest=rest, difference=difference)


_REMEDY = "fuse models of one architecture, exported alike"


def _first_difference(
    names: Sequence[str], graphs: Sequence[ir.Model], signed: Sequence[Signatures]
) -> str:
    for name, graph, other in zip(names[1:], graphs[1:], signed[1:], strict=True):
        if _digest(other, graph) != _digest(signed[0], graphs[0]):
            pair = (names[0], signed[0], graphs[0]), (name, other, graph)
            return difference_of(*pair)
    return ""


def _digest(signed: Signatures, model: ir.Model) -> str:
    """Digest a whole graph: inputs, outputs and the operators that these need."""
    inputs = [signed.values[value] for value in model.graph.inputs]
    outputs = [signed.values[value] for value in model.graph.outputs]
    operators = sorted(signed.of.values())
    return digest((inputs, outputs, operators)).hex()
