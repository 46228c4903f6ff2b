"""What a backend reads a model from. Knows no inference library."""

from __future__ import annotations

from collections.abc import Callable

from coinfer.errors import ModelError
from coinfer.model import Model

__all__ = ["source_of"]


def source_of(model: Model) -> tuple[bytes | str, Callable[[], None]]:
    """Return the bytes of exactly what was validated, or the path if no message can hold them.

    The path comes second because the file may have changed since it was validated: it and the files
    with its weights must be the same before and after the library opened them itself.

    Returns:
        The bytes or the path, and what to call when the library has read all of it. That raises
        `ModelError` if it may have read something else.

    Raises:
        ModelError: larger than a message can be, and there is no file, or another one by now.
    """
    try:
        return model.to_bytes(), lambda: None
    except ModelError:
        if model.source is None:
            raise
    source, content = model.source, model.content
    before = content.check_files(source)

    def check() -> None:
        if content.check_files(source) != before:
            raise ModelError(
                f"files of model {model.name!r} were changed while a library read them; load the "
                f"model again"
            )

    return str(source), check
