"""Weights: the tensors that a model stores, as initializers or in Constant nodes.

Knows their sizes and whether training moves them; does not read their data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Final

import onnx_ir as ir

from coinfer.errors import ModelError
from coinfer.graph.operators import inlined, subgraphs
from coinfer.model.canonical import constant_tensor

__all__ = ["WeightSize", "is_trainable", "stored_tensors", "stored_weights"]

_QUANTISED: Final = frozenset({1, 2, 4, 5, 6, 7})
"""Scales and zero points of `a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero`."""

_QUANTISED_UNARY: Final = frozenset({1, 2, 3, 4})
"""The same of `x, x_scale, x_zero, y_scale, y_zero`."""

_NOT_TRAINED: Final[Mapping[str, frozenset[int]]] = {
    "BatchNormalization": frozenset({3, 4}),  # running mean and variance
    "Clip": frozenset({1, 2}),
    "ConvInteger": frozenset({2, 3}),
    "DequantizeLinear": frozenset({1, 2}),
    "DequantizeWithOrder": frozenset({1}),
    "Dropout": frozenset({1, 2}),
    "DynamicQuantizeLSTM": frozenset({8, 9, 10, 11}),
    "DynamicQuantizeMatMul": frozenset({2, 3}),
    "GatherBlockQuantized": frozenset({2, 3}),
    "MatMulBnb4": frozenset({2}),
    "MatMulInteger": frozenset({2, 3}),
    "MatMulIntegerToFloat": frozenset({2, 3, 4, 5}),
    "MatMulNBits": frozenset({2, 3, 4}),
    "Pad": frozenset({1, 2, 3}),
    "Pow": frozenset({1}),
    "QAttention": frozenset({3, 4, 5, 6, 7}),
    "QEmbedLayerNormalization": frozenset(range(8, 18)),
    "QGemm": frozenset({1, 2, 4, 5, 7, 8}),
    "QLinearAdd": _QUANTISED,
    "QLinearAveragePool": _QUANTISED_UNARY,
    "QLinearConv": _QUANTISED,
    "QLinearGlobalAveragePool": _QUANTISED_UNARY,
    "QLinearLeakyRelu": _QUANTISED_UNARY,
    "QLinearMatMul": _QUANTISED,
    "QLinearMul": _QUANTISED,
    "QLinearReduceMean": _QUANTISED_UNARY,
    "QLinearSigmoid": _QUANTISED_UNARY,
    "QLinearSoftmax": _QUANTISED_UNARY,
    "QLinearWhere": frozenset({2, 3, 5, 6, 7, 8}),
    "QOrderedMatMul": frozenset({1, 3, 4, 7}),
    "QuantizeLinear": frozenset({1, 2}),
    "QuantizeWithOrder": frozenset({1}),
    "Resize": frozenset({1, 2, 3}),
    "Upsample": frozenset({1}),
}
"""Inputs, by operator, that are statistics or settings and not parameters that training moves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSize:
    """A stored tensor; `trainable` if its use makes it a parameter.

    Attributes:
        name: Its own among all tensors of the model: one in a graph inside of a node has the way
            to it in front, `OUTPUT/0/NAME`, since the same name may be elsewhere too.
        elements: How many numbers it has.
        bytes: What these take; None if that is unknown, as of numbers of no type.
        trainable: Whether training moves it.
    """

    name: str
    elements: int
    bytes: int | None
    trainable: bool


def stored_weights(model: ir.Model) -> tuple[WeightSize, ...]:
    """Return all tensors that a model stores, used or not, as if none were trainable.

    >>> model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["": 20]>
    ... g (float[3] x) => (float[3] y) <float[2] w = {1, 2}>
    ... { k = Constant<value_float = 2.0>()  y = Mul(x, k) }''')
    >>> [(weight.name, weight.elements) for weight in stored_weights(model)]
    [('w', 2), ('k', 1)]
    """
    try:
        whole = inlined(model)
    except ModelError:  # what its functions store is not known then
        whole = model
    return tuple(stored_tensors(whole.graph).values())


def stored_tensors(graph: ir.Graph) -> dict[ir.Value, WeightSize]:
    """Find all tensors that a graph and the graphs inside of its nodes store."""
    return dict(_stored(graph, ""))


def is_trainable(weight: ir.Value, user: ir.Node, position: int | None) -> bool:
    """Tell whether a tensor is a parameter where a node takes it.

    Args:
        weight: A stored tensor's value.
        user: The node.
        position: Which of its inputs the tensor is; None if a graph inside of it returns it.
    """
    tensor = _tensor_of(weight)
    # A scalar is a constant of the formula, such as 1/sqrt(d) in attention, and not trained.
    if tensor is None or not tensor.dtype.is_floating_point() or not tensor.shape.numpy():
        return False
    if user.op_type == "QLinearConcat" and position is not None:
        return position > 1 and position % 3 == 2  # y_scale, y_zero, then x, x_scale, x_zero each
    return position not in _NOT_TRAINED.get(user.op_type, ())


def _stored(graph: ir.Graph, way: str) -> Iterator[tuple[ir.Value, WeightSize]]:
    constants = (value for node in graph if node.op_type == "Constant" for value in node.outputs)
    for value in (*graph.initializers.values(), *constants):
        tensor = _tensor_of(value)
        if tensor is not None:
            yield value, _size(f"{way}{value.name}", tensor)
    for node in graph:
        for index, inner in enumerate(subgraphs(node)):
            first = node.outputs[0].name if node.outputs else node.name
            yield from _stored(inner, f"{way}{first}/{index}/")


def _tensor_of(value: ir.Value) -> ir.TensorProtocol | None:
    try:
        return constant_tensor(value)
    except (TypeError, ValueError):  # a Constant whose attribute is not what its name says
        return None


def _size(name: str, tensor: ir.TensorProtocol) -> WeightSize:
    elements = prod(int(dim) for dim in tensor.shape.numpy())
    return WeightSize(name=name, elements=elements, bytes=_bytes_of(tensor), trainable=False)


def _bytes_of(tensor: ir.TensorProtocol) -> int | None:
    try:
        return tensor.nbytes
    except (TypeError, ValueError):  # `onnx_ir` knows no size of this type
        return None
