"""Asked: what the parameters of a request ask of the scheduler, in the engine's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from coinfer.core.request import OnLate
from coinfer.errors import InputError
from coinfer.server.served_model import ServedModel

__all__ = ["Asked", "asked_of"]

_US = 1e-6
_NAMES = frozenset(("priority", "timeout", "on_late"))
_LONGEST_US = 10**15


class Asked(NamedTuple):
    """What `Engine.submit` is to be given beside the inputs.

    Attributes:
        deadline_s: Seconds from now by which the answer is wanted; None: no deadline.
        priority: Larger is more urgent.
        on_late: What becomes of a request whose deadline passes before it starts.
    """

    deadline_s: float | None = None
    priority: int = 0
    on_late: OnLate = OnLate.RUN


def asked_of(
    model: ServedModel, parameters: Mapping[str, Any], deadline_s: float | None = None
) -> Asked:
    """Read the parameters of the extension for scheduling: `priority` and `timeout`.

    The protocol's priority 1 is the most urgent, and 0 stands for the model's own. A `timeout` in
    microseconds is a deadline; where both it and the transport give one, the sooner counts. A
    request that a client gives a deadline is dropped rather than answered late, unless the
    parameter `on_late` is `run`.

    Args:
        model: What the request asks for.
        parameters: Of the request.
        deadline_s: Seconds that the transport gives it; None: any.

    Raises:
        InputError: one of them makes no sense.

    >>> from coinfer.testing.models import tiny_linear
    >>> from coinfer.server.served_model import served
    >>> asked_of(served("m", tiny_linear().model), {"timeout": 5000, "priority": 1})
    Asked(deadline_s=0.005, priority=9, on_late=<OnLate.DROP: 'drop'>)
    """
    if deadline_s is None and _NAMES.isdisjoint(parameters):  # nearly always
        return Asked(model.deadline_s, model.priority, model.on_late)
    timeout_us = _whole("timeout", parameters.get("timeout", 0), _LONGEST_US)
    level = _whole("priority", parameters.get("priority", 0), 2**32 - 1)
    given = [seconds for seconds in (deadline_s, timeout_us * _US or None) if seconds is not None]
    text = parameters.get("on_late", "drop")
    if text not in ("run", "drop"):
        raise InputError("parameter 'on_late' must be 'run' or 'drop'")
    priority = model.priority + (model.level - level if level else 0)
    if not given:
        return Asked(model.deadline_s, priority, model.on_late)
    return Asked(max(min(given), 1e-9), priority, OnLate(text))


def _whole(name: str, value: object, most: int) -> int:
    """Return a whole number; clients of JSON may send it as a text, as protobuf's mapping does."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    if type(value) is not int or not 0 <= value <= most:
        raise InputError(f"parameter {name!r} must be a whole number from 0 to {most}")
    return value
