"""Models: load and validate an ONNX file, read its specs, fingerprint it. Knows no backend.

`load_model` checks a file and returns a `Model`; `model_from_bytes` does the same for a serialized
model, `model_from_ir` for a graph that was built or transformed in memory. The heavy libraries are
imported on the first call.
"""

from __future__ import annotations

from coinfer.model.file import load_model, model_from_bytes
from coinfer.model.fingerprint import Fingerprint
from coinfer.model.model import Model, model_from_ir
from coinfer.model.specs import TensorSpec

__all__ = ["Fingerprint", "Model", "TensorSpec", "load_model", "model_from_bytes", "model_from_ir"]
