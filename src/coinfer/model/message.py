"""Read what a parsed ONNX file holds without building a graph of it. Opens no file.

Building the graph takes ten times as long as everything here, and loading a model onto a backend
does not need it. Imported on first use: it needs `onnx` and `onnx_ir`, which are slow to import.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import onnx
import onnx_ir as ir

from coinfer.errors import ModelError
from coinfer.model.content import Summary
from coinfer.model.tensor_walk import Found

__all__ = [
    "check_tensor_sizes",
    "has_shape",
    "inputs_of",
    "outputs_of",
    "summary_of",
]


def check_tensor_sizes(parts: Found, what: str) -> int:
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


def summary_of(proto: onnx.ModelProto, parts: Found, weight_bytes: int) -> Summary:
    """Add up what a file holds, whose tensors take so many bytes together."""
    elements: Counter[int] = Counter()
    for tensor in proto.graph.initializer:
        elements[tensor.data_type] += math.prod(tensor.dims)
    return Summary(
        op_types=parts.op_types,
        weight_elements={ir.DataType(kind).name: count for kind, count in elements.items()},
        weight_bytes=weight_bytes,
    )


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
