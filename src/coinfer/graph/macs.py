"""Count the multiply-accumulate operations of one operator from the shapes around it.

There is one rule per kind of operator that multiplies matrices. All other operators of the standard
set count zero, as in published figures. Knows nothing of time or memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import onnx_ir as ir

from coinfer.graph.count_range import UNKNOWN, CountRange
from coinfer.graph.loop_trips import constant_flag, loop_trips
from coinfer.graph.operators import subgraphs
from coinfer.graph.shapes import static_shape

__all__ = ["count_macs"]

Rule = Callable[[ir.Node], int]
"""Counts the operations of one kind of operator; raises if it cannot, of whatever class."""


class _UnknownError(Exception):
    """The count does not follow from what the file says, e.g. because a shape is open."""


def _shape(node: ir.Node, index: int) -> tuple[int, ...]:
    return _known(node.inputs[index])


def _output(node: ir.Node) -> tuple[int, ...]:
    return _known(node.outputs[0])


def _known(value: ir.Value | None) -> tuple[int, ...]:
    shape = static_shape(value)
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
    if len(terms) > 2:
        raise _UnknownError
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        shape = _shape(node, index)
        for label, size in zip(_labels(term, len(shape)), shape, strict=True):
            sizes[label] = size if sizes.get(label, 1) == 1 else sizes[label]
    return math.prod(sizes.values())


def _labels(term: str, rank: int) -> list[str]:
    """Name each axis of an operand; those that `...` stands for are counted from the last."""
    before, dots, after = term.partition("...")
    n_more = rank - len(before) - len(after)
    if n_more < 0 or (n_more and not dots):
        raise _UnknownError
    return [*before, *(f"...{axis}" for axis in range(n_more, 0, -1)), *after]


def _if(node: ir.Node) -> CountRange:
    """One of the branches runs: the one that a constant condition names, or either."""
    names = ("then_branch", "else_branch")
    then, otherwise = (_body(node.attributes[name].as_graph()) for name in names)
    flag = constant_flag(node.inputs[0])
    if flag is None:
        return then | otherwise
    return then if flag else otherwise


def _loop(node: ir.Node) -> CountRange:
    return loop_trips(node) * _body(node.attributes["body"].as_graph())


def _scan(node: ir.Node) -> CountRange:
    """The body runs once per slice of the scanned axes, which are equally long."""
    body = node.attributes["body"].as_graph()
    if len(body.inputs) != len(node.inputs):
        return UNKNOWN * _body(body)  # the Scan of opset 8, over sequences of their own lengths
    n_scanned = node.attributes.get_int("num_scan_inputs", 1)
    axes = node.attributes.get_ints("scan_input_axes", [0] * n_scanned)
    shape = static_shape(node.inputs[-n_scanned])
    trips = UNKNOWN if shape is None else CountRange.exactly(shape[axes[0]])
    return trips * _body(body)


def _any_number(node: ir.Node) -> CountRange:
    """Nothing says how often the graphs inside run, as in SequenceMap."""
    return UNKNOWN * CountRange.total(map(_body, subgraphs(node)))


def _body(graph: ir.Graph) -> CountRange:
    return CountRange.total(map(count_macs, graph))


_RULES: Final[Mapping[str, Rule]] = {
    "Attention": _attention,
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "ConvTranspose": _transposed_convolution,
    "DeformConv": _convolution(1),
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "MatMul": _product,
    "MatMulInteger": _product,
    "QLinearConv": _convolution(3),
    "QLinearMatMul": _product,
    "RNN": _recurrent,
}


_CONTROL_FLOW: Final[Mapping[str, Callable[[ir.Node], CountRange]]] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
}


def count_macs(node: ir.Node) -> CountRange:
    """Count one operator's multiply-accumulate operations.

    Args:
        node: An operator whose inputs and outputs have static shapes, see `bind_shapes`.

    Returns:
        The count; zero for operators without matrix products (elementwise, pooling, moving data);
        unknown where a shape is, for operators outside the standard set, and for those whose inputs
        or attributes are not what their rules say. For If, Loop and Scan
        as much as the graphs inside of them and constant conditions and trip counts tell.
    """
    if node.domain not in ("", "ai.onnx"):
        return UNKNOWN
    try:
        if next(subgraphs(node), None) is not None:
            return _CONTROL_FLOW.get(node.op_type, _any_number)(node)
        rule = _RULES.get(node.op_type)
        return CountRange.exactly(0 if rule is None else rule(node))
    except Exception:  # noqa: BLE001 - files are untrusted: inputs are missing, attributes are others
        return UNKNOWN
