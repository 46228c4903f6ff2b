"""Counts the multiply-accumulate operations of one operator from the shapes around it.

One rule per kind of operator that multiplies matrices; everything else in the standard operator
set counts zero, as in published figures. Knows nothing of time or memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import onnx_ir as ir

from coinfer.graph.shapes import static_shape

__all__ = ["count_macs"]

Rule = Callable[[ir.Node], int | None]


def _shape(node: ir.Node, index: int) -> tuple[int, ...] | None:
    return static_shape(node.inputs[index]) if index < len(node.inputs) else None


def _output(node: ir.Node) -> tuple[int, ...] | None:
    return static_shape(node.outputs[0])


def _convolution(weight_index: int) -> Rule:
    """Each output element takes one filter, `(out, in / groups, *kernel)`."""

    def count(node: ir.Node) -> int | None:
        weight, output = _shape(node, weight_index), _output(node)
        if weight is None or output is None:
            return None
        return math.prod(output) * math.prod(weight[1:])

    return count


def _transposed_convolution(node: ir.Node) -> int | None:
    """Each input element is spread by one filter, `(in, out / groups, *kernel)`."""
    data, weight = _shape(node, 0), _shape(node, 1)
    if data is None or weight is None:
        return None
    return math.prod(data) * math.prod(weight[1:])


def _product(left_index: int) -> Rule:
    """Each element of a matrix product sums over the left operand's last axis."""

    def count(node: ir.Node) -> int | None:
        left, output = _shape(node, left_index), _output(node)
        if left is None or output is None:
            return None
        return math.prod(output) * left[-1]

    return count


def _gemm(node: ir.Node) -> int | None:
    left, output = _shape(node, 0), _output(node)
    if left is None or output is None:
        return None
    transposed = node.attributes.get_int("transA", 0)
    return math.prod(output) * left[0 if transposed else 1]


def _recurrent(node: ir.Node) -> int | None:
    """Each step of each sequence uses every input and recurrent weight once."""
    data, weight, recurrence = (_shape(node, index) for index in range(3))
    if data is None or weight is None or recurrence is None:
        return None
    return math.prod(data[:2]) * (math.prod(weight) + math.prod(recurrence))


def _attention(node: ir.Node) -> int | None:
    """Each query meets each key, and each weight meets each value."""
    query, key, output = _shape(node, 0), _shape(node, 1), _output(node)
    if query is None or key is None or output is None:
        return None
    keys = key[-2]
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        past = _shape(node, 4)
        if past is None:
            return None
        keys += past[-2]
    return keys * (math.prod(query) + math.prod(output))


def _einsum(node: ir.Node) -> int | None:
    """Two operands: one multiplication per combination of all indices. One operand: none."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    terms = equation.split("->")[0].split(",")
    if len(terms) == 1:
        return 0
    if len(terms) > 2 or "." in equation:
        return None
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        shape = _shape(node, index)
        if shape is None:
            return None
        for label, size in zip(term, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return math.prod(sizes.values())


def _unknown(_: ir.Node) -> int | None:
    """Control flow: how often the body runs is not in the file."""
    return None


_RULES: Final[Mapping[str, Rule]] = {
    "Attention": _attention,
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "ConvTranspose": _transposed_convolution,
    "DeformConv": _convolution(1),
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "If": _unknown,
    "LSTM": _recurrent,
    "Loop": _unknown,
    "MatMul": _product(0),
    "MatMulInteger": _product(0),
    "QLinearConv": _convolution(3),
    "QLinearMatMul": _product(0),
    "RNN": _recurrent,
    "Scan": _unknown,
}


def count_macs(node: ir.Node) -> int | None:
    """Count one operator's multiply-accumulate operations.

    Args:
        node: An operator whose inputs and outputs have static shapes, see `bind_shapes`.

    Returns:
        The count; zero for operators without matrix products (elementwise, pooling, moving data);
        None where a shape is unknown, for control flow, and for operators outside the standard set.
    """
    if node.domain not in ("", "ai.onnx"):
        return None
    rule = _RULES.get(node.op_type)
    return 0 if rule is None else rule(node)
