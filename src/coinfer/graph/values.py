"""Find the dtype and shape of each value that one compiled part can pass to another.

Knows neither operators nor processors.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from coinfer.graph.inference import infer_shapes, made_values, mark
from coinfer.model.specs import TensorSpec
from coinfer.model.validation import spec_of

__all__ = ["border_specs"]

_HANDED_OVER: Final = frozenset(
    {
        *("BOOL", "STRING", "FLOAT16", "FLOAT", "DOUBLE"),
        *("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
    }
)
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
    copy = model.clone()
    infer_shapes(copy, believe_sizes=False)
    graph = copy.graph
    specs = [
        spec_of(value, graph.name or "", "value")
        for value in (*graph.inputs, *made_values(graph), *graph.outputs)
        if isinstance(value.type, ir.TensorType)
        and value.type.dtype.name in _HANDED_OVER
        and value.shape is not None
    ]
    return {spec.name: spec for spec in specs}
