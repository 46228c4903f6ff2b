"""Checkpoint: all that training needs to go on as if it had not been stopped, as a file."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, Final

from coinfer.documents.writing import replace_file
from coinfer.errors import ConfigurationError
from coinfer.retraining.library import torch

__all__ = ["read_checkpoint", "write_checkpoint"]

_FORMAT: Final = "coinfer-retraining/1"


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain values, in one step.

    Raises:
        OSError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch().save({"format": _FORMAT, **state}, buffer)
    replace_file(path, buffer.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a state; None if there is no file yet. Nothing but tensors and plain values is read.

    Raises:
        ConfigurationError: it is no checkpoint, or is damaged.
    """
    if not path.exists():
        return None
    try:
        state = torch().load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise ConfigurationError(
            f"{path} is no checkpoint of retraining, or is damaged; remove it to begin anew"
        ) from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ConfigurationError(
            f"{path} is no checkpoint of retraining ({_FORMAT}); remove it to begin anew"
        )
    return state
