"""Import onnxruntime without the usage events that it would send."""

from __future__ import annotations

import os
from typing import Any

# Official builds send usage events over the network unless told not to before the import. A
# library must not start that for its user; who wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as _state

__all__ = ["LIBRARY_ERRORS", "ort"]


def _is_error(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, Exception)


LIBRARY_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    *filter(_is_error, vars(_state).values()),
)
"""What the library raises: its kinds have no base of their own, and what has no kind comes as a
`RuntimeError`."""
