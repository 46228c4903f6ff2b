"""Library: torch, imported when it is first needed, with a hint where it is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from coinfer.errors import ConfigurationError

__all__ = ["the_exporter", "torch"]

_INSTALL = "install it: pip install 'coinfer[torch]'"


def torch() -> Any:
    """Return the module `torch`.

    Raises:
        ConfigurationError: it is not installed, or cannot be imported.
    """
    return _imported("torch", "retraining needs torch")


def the_exporter() -> Any:
    """Return the module `torch.onnx`, of which `onnxscript` must be installed too.

    Raises:
        ConfigurationError: one of them is not installed, or cannot be imported.
    """
    _imported("onnxscript", "exporting from torch needs onnxscript")
    return torch().onnx


def _imported(name: str, what: str) -> Any:
    try:
        return import_module(name)
    except (ImportError, OSError) as error:  # OSError: a shared library of it is missing
        raise ConfigurationError(
            f"{what}, which cannot be imported ({error}); {_INSTALL}"
        ) from error
