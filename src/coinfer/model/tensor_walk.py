"""Find every tensor of a parsed ONNX file, wherever the format can hold one. Opens no file.

The format describes itself: a field that leads to a tensor is found by its type, not by its name,
so a place that a later version of ONNX adds is walked too. Imported on first use: it needs `onnx`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import onnx

__all__ = ["Found", "find_tensors", "is_repeated"]

_TENSOR = "onnx.TensorProto"
_NODE = "onnx.NodeProto"
_GRAPH = "onnx.GraphProto"

_KEPT = frozenset(
    {
        "onnx.ModelProto.graph",
        "onnx.ModelProto.functions",
        "onnx.FunctionProto.node",
        "onnx.GraphProto.node",
        "onnx.GraphProto.initializer",
        "onnx.NodeProto.attribute",
        "onnx.AttributeProto.t",
        "onnx.AttributeProto.g",
        "onnx.AttributeProto.graphs",
    }
)
"""The fields whose tensors are initializers and constants of the graph in memory."""

_ASIDE = frozenset({"onnx.ModelProto.functions", "onnx.ModelProto.training_info"})


class Found(NamedTuple):
    """What a file is made of.

    Attributes:
        tensors: All of its tensors, also the parts of sparse ones.
        elsewhere: Those that are neither initializers nor constants: parts of sparse tensors, lists
            of tensors, defaults of functions' attributes, what is for training.
        op_types: Types of its operators, without those of functions and of training.
        has_sparse_initializers: Whether a graph has any, also one inside of an operator.
    """

    tensors: list[onnx.TensorProto]
    elsewhere: list[onnx.TensorProto]
    op_types: frozenset[str]
    has_sparse_initializers: bool


class _Way(NamedTuple):
    """A field that leads to tensors."""

    kind: str
    is_repeated: bool
    is_kept: bool
    is_own: bool


def find_tensors(proto: onnx.ModelProto) -> Found:
    """Walk through a file once; with a stack of its own, as graphs are deep."""
    ways = _ways()
    tensors: list[onnx.TensorProto] = []
    elsewhere: list[onnx.TensorProto] = []
    op_types: set[str] = set()
    is_sparse = False
    stack: list[tuple[Any, str, bool, bool]] = [(proto, "onnx.ModelProto", True, True)]
    while stack:
        message, kind, is_kept, is_own = stack.pop()
        if kind == _TENSOR:
            tensors.append(message)
            if not is_kept:
                elsewhere.append(message)
            continue
        if kind == _NODE and is_own:
            op_types.add(message.op_type)
        elif kind == _GRAPH and is_kept and message.sparse_initializer:
            is_sparse = True
        of_kind = ways[kind]
        for field, value in message.ListFields():  # of most attributes few fields are set
            way = of_kind.get(field.name)
            if way is None:
                continue
            kept, own = is_kept and way.is_kept, is_own and way.is_own
            if way.is_repeated:
                stack.extend((each, way.kind, kept, own) for each in reversed(value))
            else:
                stack.append((value, way.kind, kept, own))
    return Found(tensors, elsewhere, frozenset(op_types), is_sparse)


@cache
def _ways() -> dict[str, dict[str, _Way]]:
    """Return, by type of message, the fields that lead to a tensor, however far around."""
    types = _types(onnx.ModelProto.DESCRIPTOR)
    leads = {_TENSOR}
    while True:
        more = {
            name
            for name, descriptor in types.items()
            if any(field.message_type.full_name in leads for field in _messages(descriptor))
        }
        if more <= leads:
            break
        leads |= more
    return {
        name: {
            field.name: _Way(
                field.message_type.full_name,
                is_repeated(field),
                field.full_name in _KEPT,
                field.full_name not in _ASIDE,
            )
            for field in _messages(types[name])
            if field.message_type.full_name in leads
        }
        for name in leads
    }


def _types(root: Any) -> dict[str, Any]:
    """Return the types of messages that one type can hold, by name."""
    found: dict[str, Any] = {}
    stack = [root]
    while stack:
        descriptor = stack.pop()
        if descriptor.full_name not in found:
            found[descriptor.full_name] = descriptor
            stack.extend(field.message_type for field in _messages(descriptor))
    return found


def _messages(descriptor: Any) -> list[Any]:
    return [field for field in descriptor.fields if field.message_type is not None]


def is_repeated(field: Any) -> bool:
    """Tell whether a field is a list."""
    # `is_repeated` came with protobuf 6.31, which warns of `label`.
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return bool(field.label == field.LABEL_REPEATED)
