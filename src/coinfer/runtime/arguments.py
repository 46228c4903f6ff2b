"""Arguments: what callers hand over, checked before anybody else sees it. Knows no engine.

Whatever is given, the caller gets one error that names the argument; nothing foreign goes further.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping
from typing import Any

from coinfer.core.request import OnLate
from coinfer.errors import ConfigurationError, InputError, UnknownNameError

__all__ = [
    "MOST_PRIORITY",
    "moment",
    "new_name",
    "patience",
    "positive_seconds",
    "said",
    "shown",
    "to_on_late",
    "unknown_name",
    "whole",
    "wrong_inputs",
]

MOST_PRIORITY = 2**53
"""Policies compute with priorities, and a float holds no larger whole number exactly."""

_LONGEST = 80


def shown(value: object) -> str:
    """Return a value for a message; foreign ones may not even be able to show themselves.

    >>> shown("x"), shown("x" * 100)[-5:]
    ("'x'", 'xx...')
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - foreign code, or an integer too long for a text
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def said(error: BaseException) -> str:
    """Return kind and text of an error; foreign ones may not even be able to say that."""
    kind = type(error).__name__
    try:
        return f"{kind}: {error}"
    except Exception:  # noqa: BLE001 - foreign code
        return kind


def unknown_name(name: object, models: Collection[str]) -> UnknownNameError:
    """Return the error for a model that is not loaded, or a name that is none."""
    if isinstance(name, str):
        return UnknownNameError.of("model", str.__str__(name), list(models))
    listed = ", ".join(sorted(models)) or "none"
    return UnknownNameError(f"{shown(name)} is no name of a model. Known: {listed}.")


def new_name(name: object) -> str:
    """Return the name that a model gets.

    Raises:
        ConfigurationError: it is no text, or empty.
    """
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"a model's name must be a text, got {shown(name)}")
    return str.__str__(name)


def wrong_inputs(model: str, inputs: object, error: Exception) -> InputError:
    """Return the error for inputs that cannot even be checked."""
    return InputError(
        f"model {model!r}: inputs must be arrays by name, got {type(inputs).__name__} "
        f"({said(error)})"
    )


def moment(due_s: object) -> float:
    """Return a moment in the engine's time.

    Raises:
        ConfigurationError: it is none.
    """
    seconds = _number(due_s)
    if not math.isfinite(seconds):
        raise ConfigurationError(
            f"due_s must be a moment in the seconds of clock.now(), got {shown(due_s)}"
        )
    return seconds


def positive_seconds(what: str, value: object) -> float:
    """Return seconds that are more than none, and not without end.

    Raises:
        ConfigurationError: they are not.
    """
    seconds = _number(value)
    if not 0 < seconds < math.inf:
        raise ConfigurationError(f"{what} must be positive seconds, got {shown(value)}")
    return seconds


def patience(what: str, value: object) -> float | None:
    """Return how long somebody waits; None means without end.

    Raises:
        ConfigurationError: it is no number of seconds.
    """
    if value is None:
        return None
    seconds = _number(value)
    if not seconds >= 0:
        raise ConfigurationError(
            f"{what} must be seconds, or None for no limit, got {shown(value)}"
        )
    return None if seconds == math.inf else seconds


def whole(what: str, value: object) -> int:
    """Return a whole number that floats hold exactly.

    Raises:
        ConfigurationError: it is none.
    """
    number = None
    if not _is_truth(value):
        try:
            number = operator.index(value)  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001 - foreign code
            number = None
    if number is None or not -MOST_PRIORITY <= number <= MOST_PRIORITY:
        raise ConfigurationError(
            f"{what} must be a whole number of at most 2**53 either way, got {shown(value)}"
        )
    return int(number)


def to_on_late(text: object) -> OnLate:
    """Return what to do with a late request.

    Raises:
        ConfigurationError: it is none of the known ways.
    """
    try:
        return OnLate(text)
    except Exception:  # noqa: BLE001 - foreign code: it cannot be compared
        raise ConfigurationError(f"on_late must be 'run' or 'drop', got {shown(text)}") from None


def _number(value: Any) -> float:
    """Return a number as a float; what is none, or too large for one, as NaN."""
    if _is_truth(value) or isinstance(value, str | bytes | Mapping):
        return math.nan
    try:
        return float(value)
    except Exception:  # noqa: BLE001 - foreign code
        return math.nan


def _is_truth(value: object) -> bool:
    return type(value).__name__ in ("bool", "bool_")
