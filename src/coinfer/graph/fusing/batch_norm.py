"""Batch norm: fold normalisations by stored statistics into the convolutions before them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx_ir as ir

from coinfer.graph.initializers import Initializers

__all__ = ["fold_batch_norms"]

_OUTPUT_AXIS: Final = {"Conv": 0, "ConvTranspose": 1}
"""Which axis of the weight counts output channels."""

_Array = np.ndarray[Any, Any]


def fold_batch_norms(graph: ir.Graph) -> None:
    """Fold each `BatchNormalization` that alone reads a convolution with stored weights.

    `y = (conv(x) - mean) * f + beta` with `f = scale / sqrt(variance + epsilon)` is the convolution
    with the weight `w * f` and the bias `(bias - mean) * f + beta`; computed in float64.

    Args:
        graph: It is changed; the tensors that it had are not.
    """
    initializers = Initializers(graph)
    for node in tuple(graph):
        if node.op_type == "BatchNormalization" and not node.domain and _can_fold(node, graph):
            _fold(node, graph, initializers)


def _can_fold(node: ir.Node, graph: ir.Graph) -> bool:
    value = node.inputs[0]
    conv = None if value is None else value.producer()
    if conv is None or value is None or conv.op_type not in _OUTPUT_AXIS or conv.domain:
        return False
    read_once = len(value.uses()) == 1 and not value.is_graph_output() and conv.graph is graph
    stored = all(_is_stored(each) for each in (*conv.inputs[1:], *node.inputs[1:]) if each)
    training = node.attributes.get_int("training_mode", 0)
    alone = sum(bool(each.name) and bool(each.uses()) for each in node.outputs[1:]) == 0
    return read_once and stored and not training and alone and len(node.inputs) == 5


def _is_stored(value: ir.Value) -> bool:
    tensor = value.const_value
    fits = tensor is not None and tensor.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE)
    return fits and value.is_initializer() and not value.is_graph_input()


def _fold(node: ir.Node, graph: ir.Graph, initializers: Initializers) -> None:
    made = node.inputs[0]
    conv = None if made is None else made.producer()
    assert conv is not None  # it was asked for
    scale, beta, mean, variance = (_array(value) for value in node.inputs[1:5])
    factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    weight, dtype = _array(conv.inputs[1]), conv.inputs[1].const_value.numpy().dtype  # type: ignore[union-attr]
    bias = _array(conv.inputs[2]) if len(conv.inputs) > 2 and conv.inputs[2] else 0.0
    name = node.outputs[0].name or ""
    folded = _scaled(conv, weight, factor).astype(dtype)
    inputs = [
        conv.inputs[0],
        initializers.add(f"{name}.weight", folded),
        initializers.add(f"{name}.bias", ((bias - mean) * factor + beta).astype(dtype)),
    ]
    new = ir.Node("", conv.op_type, inputs, conv.attributes.values(), name=conv.name)
    graph.insert_before(node, new)
    result, old = new.outputs[0], node.outputs[0]
    result.type, result.shape = old.type, old.shape
    ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    graph.remove([node, conv], safe=True)
    result.name = name


def _scaled(conv: ir.Node, weight: _Array, factor: _Array) -> _Array:
    """Scale the output channels; those of a transposed convolution come in groups."""
    if conv.op_type == "Conv":
        return weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    groups = conv.attributes.get_int("group", 1)
    by_group = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    scaled = by_group * factor.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))
    return scaled.reshape(weight.shape)


def _array(value: ir.Value | None) -> _Array:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy().astype(np.float64)
