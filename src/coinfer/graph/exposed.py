"""Exposed: a model that gives values from inside of it beside its outputs. Runs nothing."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from coinfer.graph.inference import border_specs
from coinfer.graph.operators import inlined
from coinfer.model import Model, model_from_ir

__all__ = ["exposed"]


def exposed(model: Model, names: Iterable[str], *, otherwise: ir.DataType | None = None) -> Model:
    """Return a model that also gives these values, after its own outputs.

    Args:
        model: The model; it is not changed, and weights are shared.
        names: Tensors of known rank that its operators make (`Operators.specs`). What is an output
            already, or an input, is left as it is.
        otherwise: Of this type are those whose rank is not known; None: there must be none.

    >>> from coinfer.testing.models import tiny_linear
    >>> [spec.name for spec in exposed(tiny_linear().model, ["p"]).outputs]
    ['y', 'p']
    """
    whole = inlined(model.graph)
    specs = border_specs(whole)
    clone = whole.clone()
    graph = clone.graph
    values = ir.convenience.create_value_mapping(graph, include_subgraphs=False)
    for name in dict.fromkeys(names):
        value = values[name]
        if value.is_graph_input() or value.is_graph_output():
            continue
        if name in specs or otherwise is None:
            value.type = ir.TensorType(ir.DataType.from_numpy(specs[name].dtype))
            value.shape = ir.Shape(specs[name].shape)
        else:
            value.type, value.shape = ir.TensorType(otherwise), None
        graph.outputs.append(value)
    return model_from_ir(clone, name=model.name)
