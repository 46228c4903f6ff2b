"""Naming: errors of a stage say which stage of which ensemble it was, and stay of their class."""

from __future__ import annotations

import copy
import traceback
from concurrent.futures import CancelledError
from pathlib import Path

from coinfer.errors import CoinferError, ExecutionError

__all__ = ["named", "of_step"]


def named(where: str, error: BaseException) -> CoinferError:
    """Return an error as that of a stage; its class, status and patience stay.

    Args:
        where: The ensemble and its stage.
        error: What went wrong there.

    >>> from coinfer.errors import DroppedError
    >>> named("ensemble 'e', stage 's'", DroppedError("too late"))
    DroppedError("ensemble 'e', stage 's': too late")
    """
    if isinstance(error, CoinferError):
        found = copy.copy(error)
        found.args = (f"{where}: {error}",)
    elif isinstance(error, CancelledError):
        found = ExecutionError(f"{where}: its request was cancelled")
    else:
        found = ExecutionError.of(where, f"{type(error).__name__}: {error}")
    found.__cause__ = error
    return found


def of_step(call: str, error: Exception) -> CoinferError:
    """Return the error of a Python function: those that it raises of ours stay what they are."""
    if isinstance(error, CoinferError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    found = ExecutionError.of(f"{call} failed", f"{type(error).__name__}: {error}{place}")
    found.__cause__ = error
    return found
