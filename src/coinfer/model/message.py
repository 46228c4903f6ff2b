"""Read what a parsed ONNX file holds without building a graph of it. Opens no file.

Building the graph takes ten times as long as everything here, and loading a model onto a backend
does not need it. Imported on first use: it needs `onnx` and `onnx_ir`, which are slow to import.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import onnx
import onnx_ir as ir

from coinfer.errors import ModelError
from coinfer.model.content import Summary

__all__ = [
    "Parts",
    "check_tensor_sizes",
    "has_shape",
    "inputs_of",
    "outputs_of",
    "parts_of",
    "summary_of",
]


class Parts(NamedTuple):
    """What a file is made of.

    Attributes:
        tensors: Initializers and tensor attributes, those of branches and functions too.
        op_types: Types of its operators, without those of functions.
    """

    tensors: Sequence[onnx.TensorProto]
    op_types: frozenset[str]


def parts_of(proto: onnx.ModelProto) -> Parts:
    """Walk through a file once."""
    tensors: list[onnx.TensorProto] = []
    op_types: set[str] = set()
    _walk_graph(proto.graph, tensors, op_types)
    for function in proto.functions:
        _walk(function.node, tensors, set())
    return Parts(tensors, frozenset(op_types))


def check_tensor_sizes(parts: Parts, what: str) -> int:
    """Check that each tensor that is not in another file has the bytes that its shape asks for.

    Returns:
        Bytes of all tensors together, also of those in other files.

    Raises:
        ModelError: names the tensor that does not.
    """
    total = 0
    for tensor in parts.tensors:
        if tensor.data_type == onnx.TensorProto.STRING:
            unit, found, wanted = "strings", len(tensor.string_data), math.prod(tensor.dims)
            total += sum(len(text) for text in tensor.string_data)
        else:
            bits = math.prod(tensor.dims) * _bits(tensor.data_type)
            unit, wanted = "bytes", -(-bits // 8)
            found = _stored_bytes(tensor, wanted)
            total += wanted
        if found != wanted:
            raise ModelError(
                f"{what}: tensor {tensor.name!r} needs {wanted} {unit} but has {found}; the file "
                f"is damaged, export it again"
            )
    return total


def inputs_of(proto: onnx.ModelProto) -> list[ir.Value]:
    """Return the inputs that a caller gives, or may give: those without an initializer."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    return [_value(info) for info in proto.graph.input if info.name not in stored]


def outputs_of(proto: onnx.ModelProto) -> list[ir.Value]:
    """Return the outputs."""
    return [_value(info) for info in proto.graph.output]


def has_shape(info: onnx.ValueInfoProto) -> bool:
    """Return whether a rank is stated, or needs none: the value is no tensor."""
    return not info.type.HasField("tensor_type") or bool(info.type.tensor_type.HasField("shape"))


def summary_of(proto: onnx.ModelProto, parts: Parts, weight_bytes: int) -> Summary:
    """Add up what a file holds, whose tensors take so many bytes together."""
    elements: Counter[int] = Counter()
    for tensor in proto.graph.initializer:
        elements[tensor.data_type] += math.prod(tensor.dims)
    return Summary(
        op_types=parts.op_types,
        weight_elements={ir.DataType(kind).name: count for kind, count in elements.items()},
        weight_bytes=weight_bytes,
    )


def _walk_graph(
    graph: onnx.GraphProto, tensors: list[onnx.TensorProto], op_types: set[str]
) -> None:
    tensors.extend(graph.initializer)
    _walk(graph.node, tensors, op_types)


def _walk(
    nodes: Iterable[onnx.NodeProto], tensors: list[onnx.TensorProto], op_types: set[str]
) -> None:
    for node in nodes:
        op_types.add(node.op_type)
        for attr in node.attribute:
            # The file is untrusted: its `type` may not say what is there.
            if attr.HasField("t"):
                tensors.append(attr.t)
            tensors.extend(attr.tensors)
            if attr.HasField("g"):
                _walk_graph(attr.g, tensors, op_types)
            for graph in attr.graphs:
                _walk_graph(graph, tensors, op_types)


def _value(info: onnx.ValueInfoProto) -> ir.Value:
    return ir.serde.deserialize_value_info_proto(info, None)


def _stored_bytes(tensor: onnx.TensorProto, wanted: int) -> int:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return wanted  # its length was checked against the file
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    return len(ir.serde.deserialize_tensor(tensor).tobytes())


@cache
def _bits(data_type: int) -> int:
    return ir.DataType(data_type).bitwidth
