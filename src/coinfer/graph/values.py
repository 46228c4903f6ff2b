"""Find the dtype and shape of each value that one compiled part can pass to another.

Knows ONNX shape inference; knows neither operators nor processors.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir

from coinfer.model.specs import TensorSpec
from coinfer.model.validation import skeleton

__all__ = ["border_specs"]

_DTYPES: Final = {
    ir.DataType[name].value: np.dtype(object if name == "STRING" else ir.DataType[name].numpy())
    for name in (
        *("BOOL", "STRING", "FLOAT16", "FLOAT", "DOUBLE"),
        *("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
    )
}
"""What arrays can hold and every library takes and gives. bfloat16 and narrower types cannot."""


def border_specs(model: ir.Model) -> dict[str, TensorSpec]:
    """Infer which values are tensors of known rank and of a dtype that numpy has, and their specs.

    Args:
        model: A valid model without functions of its own; it is not changed, and its weights are
            not read.

    Returns:
        Specs by name. Sequences, optionals and what cannot be inferred are left out.

    >>> model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["": 20]>
    ... g (float[n, 3] x) => (float[n, 3] y) { a = Relu(x)  y = Exp(a) }''')
    >>> str(border_specs(model)["a"])
    'a: float32[n,3]'
    """
    proto = ir.to_proto(skeleton(model))
    # Not strict: if one operator cannot be inferred, only its own outputs stay unknown. If all
    # of the inference fails, the declared shapes remain; its errors have no common type.
    with contextlib.suppress(Exception):
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    found = {}
    for value in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output):
        spec = _spec(value)
        if spec is not None:
            found[value.name] = spec
    return found


def _spec(value: Any) -> TensorSpec | None:
    if value.type.WhichOneof("value") != "tensor_type":
        return None
    tensor = value.type.tensor_type
    if tensor.elem_type not in _DTYPES or not tensor.HasField("shape"):
        return None
    shape = tuple(_dimension(dim) for dim in tensor.shape.dim)
    return TensorSpec(name=value.name, dtype=_DTYPES[tensor.elem_type], shape=shape)


def _dimension(dim: Any) -> int | str | None:
    if dim.WhichOneof("value") == "dim_value":
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return str(dim.dim_param) or None
