"""Dense layers: edit a graph that ONNX Runtime rewrote, so that weights are used as they are.

Whenever a session is made, ONNX Runtime brings the right operand of a `Gemm` into another form if
it is constant: a millisecond by the MiB. If a file holds that form already, it does so all the
same, to compare both, and throws its own away. The left operand it reads as it is. So a layer of
x W^T becomes that of (W x^T)^T: nothing is to be prepared then, and nothing is held twice. Each
sum has the same products, added in another order. Knows graphs; runs nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from coinfer.graph.initializers import Initializers

__all__ = ["weights_to_the_left"]

_LAYERS = (("", "Gemm"), ("com.microsoft", "FusedGemm"))

_LEAST_WEIGHT_BYTES = 2**25
"""Smaller ones are prepared within some thirty milliseconds. With weights to the left, runs of 2 to
8 rows take as long as one of 16: of weights that the caches hold that is up to seven times as long
as with weights to the right, of 16 MiB twice as long."""

_MOST_ROWS = 64
"""With more than that many rows in x a run would take longer, by a tenth or so."""


def weights_to_the_left(model: ir.Model) -> int:
    """Swap the operands of dense layers whose weights are large and constant.

    Only of those that have a row for each sample, or few rows: what the graph's own shapes say.

    Args:
        model: A graph that is to be loaded as it is; it is changed.

    Returns:
        How many layers were changed.
    """
    graph = model.graph
    initializers = Initializers(graph)
    batches = {value.shape[0] for value in graph.inputs if value.shape}
    count = 0
    for node in list(graph):
        if (node.domain, node.op_type) in _LAYERS and _can_swap(node, batches):
            _swap(node, graph, initializers)
            count += 1
    return count


def _can_swap(node: ir.Node, batches: set[int | ir.SymbolicDim]) -> bool:
    x, weight, bias = (*node.inputs, None)[:3]
    constant = None if weight is None else weight.const_value
    return (
        x is not None
        and x.shape is not None
        and len(x.shape) == 2
        and _has_few_rows(x.shape[0], batches)
        and weight is not None
        and weight.is_initializer()
        and not weight.is_graph_input()
        and constant is not None
        and constant.dtype == ir.DataType.FLOAT
        and constant.nbytes >= _LEAST_WEIGHT_BYTES
        and not _integer(node, "transA")
        and (bias is None or _column(bias) is not None)
    )


def _has_few_rows(rows: int | ir.SymbolicDim, batches: set[int | ir.SymbolicDim]) -> bool:
    if isinstance(rows, int):
        return rows <= _MOST_ROWS
    return rows.value is not None and rows in batches


def _swap(node: ir.Node, graph: ir.Graph, initializers: Initializers) -> None:
    x, weight, bias = (*node.inputs, None)[:3]
    assert x is not None
    assert weight is not None
    assert weight.const_value is not None
    [made] = node.outputs
    left = weight
    if not _integer(node, "transB"):
        left = initializers.add(f"{weight.name}.T", weight.const_value.numpy().T)
    inputs = [left, x]
    column = None if bias is None else _column(bias)
    if column is not None and bias is not None:
        inputs.append(initializers.add(f"{bias.name}.T", column))
    kept = [a for a in node.attributes.values() if a.name not in ("transA", "transB")]
    # For a single row the library has a fast path that takes the operand in this order only.
    turned = ir.node("Transpose", [x], {"perm": [1, 0]})
    inputs[1] = turned.outputs[0]
    layer = ir.Node(node.domain, node.op_type, inputs, kept, name=node.name)
    back = ir.node("Transpose", [layer.outputs[0]], {"perm": [1, 0]})
    for value, name in ((turned.outputs[0], f"{x.name}.T"), (layer.outputs[0], f"{made.name}.T")):
        value.name = initializers.free(name)
    [last] = back.outputs
    last.type, last.shape = made.type, made.shape
    graph.insert_before(node, [turned, layer, back])
    made.replace_all_uses_with(last, replace_graph_outputs=True)
    last.name, made.name = made.name, None
    graph.remove(node, safe=True)
    initializers.drop_unused([value for value in (weight, bias) if value is not None])


def _integer(node: ir.Node, name: str) -> int:
    found = node.attributes.get(name)
    return 0 if found is None else int(found.as_int())


def _column(bias: ir.Value) -> npt.NDArray[Any] | None:
    """Return a bias that has a value for each feature, or one for all, as a column."""
    if not bias.is_initializer() or bias.is_graph_input() or bias.const_value is None:
        return None
    array = bias.const_value.numpy()
    is_row = array.size == array.shape[-1] if array.ndim else True
    return np.reshape(array, (-1, 1)) if is_row else None
