"""Number width: whether a library computes 64-bit numbers in fewer bits; seen by adding two."""

from __future__ import annotations

from contextlib import closing
from typing import Final

import numpy as np

from coinfer.errors import BackendError, ExecutionError
from coinfer.machine.processor import Processor
from coinfer.model import model_from_ir
from coinfer.profiling.context import ProfilingContext

__all__ = ["NARROW_FLOATS", "NARROW_INTEGERS", "narrows"]

NARROW_FLOATS: Final = "float64 is computed in 32 bits there"
NARROW_INTEGERS: Final = "int64 is computed in 32 bits there, which are too few for "

_SUMMANDS: Final[dict[str, tuple[float, float]]] = {
    "float64": (1.0, 2.0**-40),
    "int64": (2**33, 1),
}
_ONNX_NAMES: Final = {"float64": "double", "int64": "int64"}


def narrows(context: ProfilingContext, processor: Processor, dtype: str) -> bool:
    """Tell whether a processor computes `float64` or `int64` in fewer bits.

    One that cannot add such numbers at all counts as one that does: nobody knows what it would make
    of others.
    """
    import onnx_ir as ir  # slow to import

    name = _ONNX_NAMES[dtype]
    text = f"""<ir_version: 10, opset_import: ["": 20]>
    g ({name}[n] a, {name}[n] b) => ({name}[n] c) {{ c = Add(a, b) }}"""
    model = model_from_ir(ir.from_onnx_text(text), name=f"sum of {dtype}")
    one, other = (np.array([each], dtype) for each in _SUMMANDS[dtype])
    try:
        with closing(context.patient(model, processor)) as session:
            found = session.run({"a": one, "b": other})["c"]
    except (BackendError, ExecutionError):
        return True
    return not np.array_equal(found, one + other)
