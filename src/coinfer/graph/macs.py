"""Count the multiply-accumulate operations of one operator from the shapes around it.

There is one rule per kind of operator that multiplies matrices. All other operators of the standard
set count zero, as in published figures. Knows nothing of time or memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import onnx_ir as ir

from coinfer.graph.shapes import static_shape

__all__ = ["count_macs"]

Rule = Callable[[ir.Node], int]
"""Counts the operations of one kind of operator; raises `_UnknownError` if it cannot."""


class _UnknownError(Exception):
    """The count does not follow from what the file says, e.g. because a shape is open."""


def _shape(node: ir.Node, index: int) -> tuple[int, ...]:
    return _known(static_shape(node.inputs[index]) if index < len(node.inputs) else None)


def _output(node: ir.Node) -> tuple[int, ...]:
    return _known(static_shape(node.outputs[0]))


def _known(shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if shape is None:
        raise _UnknownError
    return shape


def _convolution(weight_index: int) -> Rule:
    """Each output element takes one filter, `(out, in / groups, *kernel)`."""
    return lambda node: math.prod(_output(node)) * math.prod(_shape(node, weight_index)[1:])


def _transposed_convolution(node: ir.Node) -> int:
    """Each input element is spread by one filter, `(in, out / groups, *kernel)`."""
    return math.prod(_shape(node, 0)) * math.prod(_shape(node, 1)[1:])


def _product(node: ir.Node) -> int:
    """Each element of a matrix product sums over the left operand's last axis."""
    return math.prod(_output(node)) * _shape(node, 0)[-1]


def _gemm(node: ir.Node) -> int:
    transposed = node.attributes.get_int("transA", 0)
    return math.prod(_output(node)) * _shape(node, 0)[0 if transposed else 1]


def _recurrent(node: ir.Node) -> int:
    """Each step of each sequence uses every input and recurrent weight once."""
    data, weight, recurrence = (_shape(node, index) for index in range(3))
    return math.prod(data[:2]) * (math.prod(weight) + math.prod(recurrence))


def _attention(node: ir.Node) -> int:
    """Each query meets each key, and each weight meets each value."""
    keys = _shape(node, 1)[-2]
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        keys += _shape(node, 4)[-2]  # keys of the past
    return keys * (math.prod(_shape(node, 0)) + math.prod(_output(node)))


def _einsum(node: ir.Node) -> int:
    """Two operands: one multiplication per combination of all indices. One operand: none."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    terms = equation.split("->")[0].split(",")
    if len(terms) == 1:
        return 0
    if len(terms) > 2 or "." in equation:
        raise _UnknownError
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        for label, size in zip(term, _shape(node, index), strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return math.prod(sizes.values())


def _control_flow(_: ir.Node) -> int:
    """How often the body runs is not in the file."""
    raise _UnknownError


_RULES: Final[Mapping[str, Rule]] = {
    "Attention": _attention,
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "ConvTranspose": _transposed_convolution,
    "DeformConv": _convolution(1),
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "If": _control_flow,
    "LSTM": _recurrent,
    "Loop": _control_flow,
    "MatMul": _product,
    "MatMulInteger": _product,
    "QLinearConv": _convolution(3),
    "QLinearMatMul": _product,
    "RNN": _recurrent,
    "Scan": _control_flow,
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
    try:
        return 0 if rule is None else rule(node)
    except _UnknownError:
        return None
