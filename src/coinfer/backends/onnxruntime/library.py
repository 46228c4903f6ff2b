"""Library: onnxruntime itself, imported without the events that it would send."""

from __future__ import annotations

import os

# Official builds send usage events over the network unless told not to before the import. A
# library must not start that for its user; who wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

__all__ = ["first_line", "ort"]


def first_line(error: Exception) -> str:
    r"""Return what a message of the library begins with.

    >>> first_line(ValueError("wrong shape\nat line 7"))
    'wrong shape'
    """
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
