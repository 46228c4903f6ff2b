"""coinfer: run many neural networks at once on the processors of one machine.

The public names are imported on first use, so that `import coinfer` stays fast.

>>> import coinfer
>>> coinfer.__version__.count(".")
2
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coinfer.api.compression import compress
    from coinfer.api.engine import Engine
    from coinfer.api.fusing import fuse
    from coinfer.core.dispatcher import Limits
    from coinfer.core.request import OnLate
    from coinfer.graph.fusing.fused_model import FusedModel
    from coinfer.machine.processor import Processor
    from coinfer.machine.profile import Profile
    from coinfer.model import Model, TensorSpec, load_model

__all__ = [
    "Engine",
    "FusedModel",
    "Limits",
    "Model",
    "OnLate",
    "Processor",
    "Profile",
    "TensorSpec",
    "compress",
    "fuse",
    "load_model",
]

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOME = {
    "Engine": "coinfer.api.engine",
    "FusedModel": "coinfer.graph.fusing.fused_model",
    "Limits": "coinfer.core.dispatcher",
    "Model": "coinfer.model",
    "OnLate": "coinfer.core.request",
    "Processor": "coinfer.machine.processor",
    "Profile": "coinfer.machine.profile",
    "TensorSpec": "coinfer.model",
    "compress": "coinfer.api.compression",
    "fuse": "coinfer.api.fusing",
    "load_model": "coinfer.model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'coinfer' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
