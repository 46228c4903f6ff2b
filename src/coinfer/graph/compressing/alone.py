"""Alone: one layer as a model of its own, to be timed with and without its parts. Runs nothing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from coinfer.errors import ModelError
from coinfer.graph.compressing.factors import Array, Factors
from coinfer.graph.compressing.layer import Layer, Ranks
from coinfer.graph.operators import nodes_by_key
from coinfer.graph.shapes import static_shape
from coinfer.model.canonical import constant_tensor

__all__ = ["alone", "geometry", "imagined_factors"]


def geometry(bound: ir.Model, layer: Layer) -> tuple[object, ...]:
    """Return all that decides how long a layer takes: layers of equal ones are timed once.

    Args:
        bound: The whole model with its shapes bound (`graph.shapes.bind_shapes`).
        layer: One of its layers.
    """
    node = nodes_by_key(bound)[layer.key]
    attributes = tuple(sorted((a.name, str(a.value)) for a in node.attributes.values()))
    shape = static_shape(node.inputs[0])
    sizes = (layer.kind, layer.groups, layer.inputs, layer.outputs, layer.kernel)
    return (*sizes, shape, str(node.inputs[0] and node.inputs[0].dtype), attributes)


def alone(bound: ir.Model, layer: Layer) -> ir.Model:
    """Return a model of one layer; its weights are shared.

    Args:
        bound: The whole model with its shapes bound (`graph.shapes.bind_shapes`).
        layer: One of its layers.

    Raises:
        ModelError: the sizes of its input are not known.
    """
    node = nodes_by_key(bound)[layer.key]
    data = node.inputs[0]
    shapes = [static_shape(value) for value in (data, node.outputs[0])]
    if data is None or data.dtype is None or None in shapes:
        raise ModelError(f"layer {layer.name!r} cannot be timed alone: its sizes are not known")
    x = ir.val("coinfer.alone", data.dtype, shapes[0])
    weights = [_copy(value) for value in node.inputs[1:] if value is not None]
    made = ir.Node("", node.op_type, [x, *weights], list(node.attributes.values()))
    made.outputs[0].name = layer.key
    made.outputs[0].dtype = data.dtype
    made.outputs[0].shape = ir.Shape(shapes[1] or ())
    graph = ir.Graph(
        [x],
        made.outputs,
        nodes=[made],
        initializers=weights,
        opset_imports=bound.opset_imports,
        name="alone",
    )
    return ir.Model(graph, ir_version=bound.ir_version)


def imagined_factors(layer: Layer, ranks: Ranks, *, seed: int = 0) -> Factors:
    """Return factors of these ranks with random numbers: as fast as real ones, sooner made."""
    rng = np.random.default_rng(seed)
    inputs = layer.inputs if ranks.inputs is None else ranks.inputs
    outputs = layer.outputs if ranks.outputs is None else ranks.outputs

    def drawn(*shape: int) -> Array:
        return rng.normal(scale=0.05, size=shape)

    return Factors(
        inputs=None if ranks.inputs is None else drawn(layer.groups, layer.inputs, inputs),
        core=drawn(layer.groups, outputs, inputs, *layer.kernel),
        outputs=None if ranks.outputs is None else drawn(layer.groups, layer.outputs, outputs),
    )


def _copy(value: ir.Value) -> ir.Value:
    tensor = constant_tensor(value)
    return ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=tensor)
