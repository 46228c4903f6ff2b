"""What a backend reads a model from. Knows no inference library."""

from __future__ import annotations

from coinfer.errors import ModelError
from coinfer.model import Model

__all__ = ["bytes_or_path", "check_unchanged"]


def bytes_or_path(model: Model) -> bytes | str:
    """Return the bytes of exactly what was validated, or the path if no message can hold them.

    The path comes second because the file may have changed since it was validated; it and the
    files with its weights must be the same. Ask `check_unchanged` once the path was read.

    Raises:
        ModelError: larger than a message can be, and there is no file, or another one by now.
    """
    try:
        return model.to_bytes()
    except ModelError:
        if model.source is None:
            raise
    model.content.check_files(model.source)
    return str(model.source)


def check_unchanged(model: Model, source: bytes | str) -> None:
    """Find out, after a library opened a path itself, whether it read what was validated.

    Raises:
        ModelError: the file, or one with its weights, is not what it was.
    """
    if isinstance(source, str):
        model.content.check_files(model.source)
