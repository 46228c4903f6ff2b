"""Make a model of one operator. Knows ONNX alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, shape_inference

from coinfer.errors import InputError, ModelError

__all__ = ["model_of_node"]

_Array = np.ndarray[Any, Any]


def model_of_node(
    node: onnx.NodeProto,
    inputs: Sequence[_Array],
    outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
    opset_version: int | None = None,
) -> onnx.ModelProto:
    """Make a model of one operator.

    Args:
        node: The operator.
        inputs: Its inputs, without those that it leaves out by an empty name.
        outputs_info: Dtype and shape of each output; None: they are inferred.
        opset_version: Version of the operator's domain; None: the newest in which the operator, or
            one nested in it, changed.

    Raises:
        InputError: the number of inputs is wrong.
        ModelError: the operator is not known, or its outputs cannot be inferred.

    >>> node = helper.make_node("Neg", ["x"], ["y"])
    >>> model = model_of_node(node, [np.zeros((2, 3), np.float32)])
    >>> [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    [2, 3]
    """
    names = list(dict.fromkeys(name for name in node.input if name))
    if len(names) != len(inputs):
        raise InputError(
            f"operator {node.op_type} reads {len(names)} values but got {len(inputs)} inputs"
        )
    given = [
        _value(name, array.dtype, array.shape) for name, array in zip(names, inputs, strict=True)
    ]
    opsets = [helper.make_opsetid(node.domain, opset_version or _version(node))]
    written = [name for name in node.output if name]
    if outputs_info is None:
        made = [onnx.ValueInfoProto(name=name) for name in written]
    else:
        made = [
            _value(name, np.dtype(dtype), shape)
            for name, (dtype, shape) in zip(written, outputs_info, strict=True)
        ]
    graph = helper.make_graph([node], node.op_type, given, made)
    model = helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets, ignore_unknown=True),
    )
    return model if outputs_info is not None else _inferred(model)


def _value(name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    for value in inferred.graph.output:
        if not value.HasField("type"):
            raise ModelError(
                f"operator {model.graph.name}: the type of output {value.name!r} cannot be "
                f"inferred; give outputs_info"
            )
    return inferred


def _version(node: onnx.NodeProto) -> int:
    found = 1
    for each in _with_nested(node):
        if each.domain == node.domain:
            if not defs.has(each.op_type, domain=each.domain):
                raise ModelError(
                    f"onnx {onnx.__version__} knows no operator {each.op_type!r} of "
                    f"{each.domain or 'ai.onnx'}; give opset_version and outputs_info"
                )
            found = max(found, defs.get_schema(each.op_type, domain=each.domain).since_version)
    return found


def _with_nested(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    yield node
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _with_nested(inner)
