"""Extract: make a model of one span of a partition. It shares its weights with the whole model.

Knows partitions; knows no library that runs models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import onnx_ir as ir

from coinfer.graph.cut_model import SpanModel
from coinfer.graph.inference import made_values
from coinfer.graph.operators import inlined, nodes_by_key, read_values
from coinfer.graph.partition import Partition
from coinfer.machine.span import Span
from coinfer.model import Model, model_from_ir

__all__ = ["extract", "kept_after", "pieces_of"]

_WEIGHTS_NEED_NO_INPUT = 4
"""The first IR version in which an initializer is a constant and not the default of an input."""


def extract(model: Model, partition: Partition, span: Span) -> Model:
    """Make a model of a span. Its inputs and outputs have the names they have in the whole.

    It is named after the whole model, with the units in brackets.

    Running the spans of a chain one after the other, each with what `Partition.reads` says from
    the model's inputs and the outputs of earlier ones, gives the outputs of the whole model.

    Args:
        model: The whole model.
        partition: A partition of it.
        span: Which units.

    Returns:
        A valid model that shares its weights in memory with the whole one, and knows its borders.
        The span of all units is the model itself.

    Raises:
        ConfigurationError: the partition has no such span.
        ModelError: the span is no valid model: a bug, or a model that misuses ONNX.

    >>> from coinfer.graph.partition import partition_at
    >>> from coinfer.testing.models import tiny_linear
    >>> model = tiny_linear().model
    >>> part = extract(model, partition_at(model, [1], {"cpu": frozenset({0, 1})}), Span(1, 1))
    >>> part.name, [str(spec) for spec in part.inputs]
    ('tiny_linear[1-1]', ['p: float32[N,3]'])
    """
    members = partition.members(span)
    if span == partition.whole:
        return model
    whole = inlined(model.graph)
    by_key = nodes_by_key(whole)
    nodes = [by_key[partition.operators[index].key] for index in members]
    reads, writes = partition.reads(span), partition.writes(span)
    values = ir.convenience.create_value_mapping(whole.graph, include_subgraphs=False)
    constants, weights = _constants(
        whole.graph,
        [*(value for node in nodes for value in read_values(node)), *(values[n] for n in writes)],
        {by_key[operator.key] for operator in partition.operators},
    )
    graph = ir.GraphView(
        [values[n] for n in reads],
        [values[n] for n in writes],
        nodes=[*constants, *nodes],
        initializers=weights,
        opset_imports=whole.graph.opset_imports,
        name=whole.graph.name,
        metadata_props=whole.graph.metadata_props,
    ).clone()
    for value in (*graph.inputs, *graph.outputs):
        spec = partition.operators.specs.get(value.name or "")
        if spec is not None:  # else it is an output of the whole model that nobody can infer
            value.type = ir.TensorType(ir.DataType.from_numpy(spec.dtype))
            value.shape = ir.Shape(spec.shape)
    _forget_claims(graph)
    part = model_from_ir(_like(whole, graph), name=f"{model.name}[{span.first}-{span.last}]")
    given = {*partition.operators.inputs, *partition.operators.outputs}
    defaults = {name: value for name, value in model.defaults.items() if name in reads}
    borders = frozenset({*reads, *writes} - given)
    return dataclasses.replace(part, borders=borders, defaults=defaults)


def _forget_claims(graph: ir.Graph) -> None:
    """Leave it to the library that runs a part to infer the shapes inside of it."""
    for value in made_values(graph):
        if not value.is_graph_output():
            value.shape = None


def _like(whole: ir.Model, graph: ir.Graph) -> ir.Model:
    """Make a model of a graph that is part of the whole one."""
    return ir.Model(
        graph,
        ir_version=max(whole.ir_version, _WEIGHTS_NEED_NO_INPUT),
        producer_name=whole.producer_name,
        producer_version=whole.producer_version,
        domain=whole.domain,
        model_version=whole.model_version,
        metadata_props=whole.metadata_props,
    )


def pieces_of(model: Model, partition: Partition, spans: Iterable[Span]) -> dict[Span, SpanModel]:
    """Extract spans of a partition, each with what is still needed after it."""
    return {
        span: SpanModel(
            model=extract(model, partition, span), keeps=kept_after(model, partition, span)
        )
        for span in spans
    }


def kept_after(model: Model, partition: Partition, span: Span) -> tuple[str, ...]:
    """Return the names of the values that are still needed after a span of a partition."""
    if span.last == partition.whole.last:
        return tuple(spec.name for spec in model.outputs)
    return tuple(sorted(partition.keep_after(span.last + 1)))


def _constants(
    graph: ir.Graph, values: Iterable[ir.Value], operators: set[ir.Node]
) -> tuple[list[ir.Node], list[ir.Value]]:
    """Find the weights among these values, and what makes the others from weights alone."""
    nodes: set[ir.Node] = set()
    weights: dict[ir.Value, None] = {}
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        producer = value.producer()
        if value.is_initializer():
            weights[value] = None
        elif producer is not None and producer not in operators and producer not in nodes:
            nodes.add(producer)
            waiting.extend(read_values(producer))
    return [node for node in graph if node in nodes], list(weights)
