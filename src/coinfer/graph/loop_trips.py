"""Loop trips: how often the body of a Loop runs, as far as the constants of the graph tell."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from coinfer.graph.count_range import CountRange
from coinfer.model.canonical import constant_tensor

__all__ = ["constant_flag", "loop_trips"]

_NO_LIMIT: Final = 2**31 - 1
"""Exporters write a trip count from here on where the loop has none."""


def loop_trips(loop: ir.Node) -> CountRange:
    """Return how often the body of a Loop runs.

    Exactly so often as its constant trip count says, if its condition stays true; at most so often
    if the condition may become false; at least once if the condition is true at first.

    >>> model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["": 20]>
    ... g (float[3] x) => (float[3] y) <int64 n = {4}, bool yes = {1}>
    ... { y = Loop(n, yes, x) <body = b (int64 i, bool go, float[3] s) => (bool on, float[3] t)
    ...   { on = Identity(go)  t = Relu(s) }> }''')
    >>> loop_trips(model.graph[0]).exact
    4
    """
    count, condition = (*loop.inputs, None, None)[:2]
    starts = True if condition is None else constant_flag(condition)
    if starts is False:
        return CountRange.exactly(0)
    written = _fixed_number(count)
    # A trip count that a caller gives, or that is computed, may be 0.
    least = 0 if count is not None and written is None else 1
    most = None if written is None or written >= _NO_LIMIT else max(0, written)
    if most is not None:
        least = most if _stays_true(loop) else min(1, most)
    return CountRange(least if starts else 0, most)


def constant_flag(value: ir.Value | None) -> bool | None:
    """Return the truth value that the file has for a condition; None if it is computed or given."""
    number = _fixed_number(value)
    return None if number is None else bool(number)


def _fixed_number(value: ir.Value | None) -> int | None:
    """A value's one number, unless a caller may give another in its place; behind Identity too."""
    value = _origin(value)
    tensor = None if value is None or value.is_graph_input() else constant_tensor(value)
    return None if tensor is None or tensor.size != 1 else int(tensor.numpy().item())


def _stays_true(loop: ir.Node) -> bool:
    """Whether the body hands on its condition as it was, or a constant true one."""
    body = loop.attributes["body"].as_graph()
    value = _origin(body.outputs[0])
    return value is body.inputs[1] or constant_flag(value) is True


def _origin(value: ir.Value | None) -> ir.Value | None:
    while value is not None and (node := value.producer()) and node.op_type == "Identity":
        value = node.inputs[0]
    return value
