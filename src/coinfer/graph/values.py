"""Find the dtype and shape of each value that one compiled part can pass to another.

Knows neither operators nor processors.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from coinfer.graph.inference import infer_shapes, made_values, mark
from coinfer.model.specs import TensorSpec
from coinfer.model.validation import dimension, skeleton

__all__ = ["border_specs"]

_DTYPES: Final = {
    ir.DataType[name]: np.dtype(object if name == "STRING" else ir.DataType[name].numpy())
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
        Specs by name. Sequences, optionals and what has no known rank are left out. A size that
        does not follow from the inputs is unknown, whatever the file claims.

    >>> model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["": 20]>
    ... g (float[n, 3] x) => (float[n, 3] y) { a = Relu(x)  y = Exp(a) }''')
    >>> str(border_specs(model)["a"])
    'a: float32[n,3]'
    """
    mark(model)
    graph = (copy := skeleton(model)).graph
    infer_shapes(copy, believe_sizes=False)
    found = {}
    for value in (*graph.inputs, *made_values(graph), *graph.outputs):
        spec = _spec(value)
        if spec is not None:
            found[spec.name] = spec
    return found


def _spec(value: ir.Value) -> TensorSpec | None:
    if not isinstance(value.type, ir.TensorType) or value.type.dtype not in _DTYPES:
        return None
    if value.shape is None:
        return None
    shape = tuple(dimension(dim) for dim in value.shape)
    return TensorSpec(name=value.name or "", dtype=_DTYPES[value.type.dtype], shape=shape)
