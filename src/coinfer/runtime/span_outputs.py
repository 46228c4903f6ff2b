"""Span outputs: whether a session returned what it must. Sessions may be anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from coinfer.backends.base import Tensor
from coinfer.backends.values import Value, Values, to_host
from coinfer.errors import ExecutionError
from coinfer.runtime.span_io import SpanIO

__all__ = ["checked_arrays", "checked_part"]

_Array = np.ndarray


def checked_arrays(made: object, span_io: SpanIO) -> dict[str, Tensor]:
    """Return what a session of a whole model made, as arrays.

    Raises:
        ExecutionError: it is not a mapping, lacks an output, or has one that is no array.
    """
    found: dict[str, Tensor] = {}  # not the session's own: it may have more, or be used again
    if type(made) is dict:
        for name in span_io.writes:
            array = made.get(name)
            if type(array) is not _Array:
                break
            found[name] = array
        else:
            return found  # nearly always
    by_name = _by_name(made)
    for name in span_io.writes:
        value = _of(by_name, name)
        if not isinstance(value, np.ndarray | np.generic):
            raise _wrong(f"output {name!r} as {type(value).__name__}, which is no array")
        found[name] = np.asarray(value)
    return found


def checked_part(made: object, span_io: SpanIO) -> Values:
    """Return what a session of a part of a model made: arrays, or what its backend keeps.

    After the last part they are arrays.

    Raises:
        ExecutionError: as of `checked_arrays`.
    """
    by_name = _by_name(made)
    part: dict[str, Value] = {name: _of(by_name, name) for name in span_io.writes}
    for name, value in part.items():
        if not (isinstance(value, np.ndarray) or hasattr(value, "to_host")):
            raise _wrong(f"output {name!r} as {type(value).__name__}, which is no tensor")
    return to_host(part) if span_io.is_last else part


def _by_name(made: object) -> Mapping[str, Any]:
    if isinstance(made, Mapping):
        return made
    raise _wrong(f"{type(made).__name__} in place of outputs by name")


def _of(made: Mapping[str, Any], name: str) -> Any:
    if name in made:
        return made[name]
    raise _wrong(f"no output {name!r}")


def _wrong(what: str) -> ExecutionError:
    return ExecutionError.of("a session", f"the session returned {what}; mend its backend")
