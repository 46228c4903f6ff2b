"""The backend that runs models with ONNX Runtime. Only what is in here imports onnxruntime."""

from coinfer.backends.onnxruntime.backend import OnnxRuntimeBackend
from coinfer.backends.onnxruntime.part import OnnxRuntimePart
from coinfer.backends.onnxruntime.session import OnnxRuntimeSession

__all__ = ["OnnxRuntimeBackend", "OnnxRuntimePart", "OnnxRuntimeSession"]
