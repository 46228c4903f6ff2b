"""The standard ONNX backend interface (`onnx.backend.base`) on top of the engine.

For code and tests that are written against that interface, the official conformance suite before
all. A program that serves several models uses `Engine`, which this wraps one model at a time.

>>> from coinfer import onnx_backend
>>> onnx_backend.supports_device("CPU")
True
"""

from __future__ import annotations

from coinfer.onnx_backend.backend import CoinferBackend
from coinfer.onnx_backend.prepared import PreparedModel

__all__ = [
    "CoinferBackend",
    "PreparedModel",
    "is_compatible",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
]

is_compatible = CoinferBackend.is_compatible
prepare = CoinferBackend.prepare
run_model = CoinferBackend.run_model
run_node = CoinferBackend.run_node
supports_device = CoinferBackend.supports_device
