"""What a backend reads a model from. Knows no inference library."""

from __future__ import annotations

from coinfer.errors import ModelError
from coinfer.model import Model

__all__ = ["bytes_or_path"]


def bytes_or_path(model: Model) -> bytes | str:
    """Return the bytes of exactly what was validated, or the path if no message can hold them.

    The path comes second because the file may have changed since it was validated.

    Raises:
        ModelError: larger than a message can be, and there is no file.
    """
    try:
        return model.to_bytes()
    except ModelError:
        if model.source is None:
            raise
        return str(model.source)
