"""The backend that runs models with OpenVINO. Only what is in here imports openvino."""

from coinfer.backends.openvino.backend import OpenVinoBackend
from coinfer.backends.openvino.session import OpenVinoSession

__all__ = ["OpenVinoBackend", "OpenVinoSession"]
