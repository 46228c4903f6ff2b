"""Log lines: requests and messages as text or as JSON. What clients sent is escaped and cut."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from coinfer.server.telemetry.record import RequestRecord

__all__ = ["FORMATS", "message_of", "request_line"]

_MOST_TEXT = 200
_MOST_REASON = 500
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/")

Said = Mapping[str, Any]


def request_line(record: RequestRecord, form: str) -> str:
    r"""Write what there is to tell of a request as one line in ASCII.

    Args:
        record: The request, once it is answered.
        form: `text` or `json`.

    >>> record = RequestRecord(transport="http", call="infer", at_ns=0, began_s=0.0, id="a\nb")
    >>> record.status, record.model, record.total_s = 200, "m", 0.0021
    >>> request_line(record, "text")
    'time=1970-01-01T00:00:00.000Z http infer model=m id="a\\nb" status=200 total_ms=2.1'
    """
    said: dict[str, Any] = {
        "time": _time(record.at_ns / 1e9),
        "level": "info",
        "event": "request",
        "transport": record.transport,
        "call": _cut(record.call),
        "model": _cut(record.model),
        "version": _cut(record.version),
        "id": _cut(record.id),
        "tenant": _cut(record.tenant),
        "status": record.status,
        "kind": record.kind,
        "reason": _cut(record.reason, _MOST_REASON),
        "queue_ms": _ms(record.queue_s),
        "compute_ms": _ms(record.compute_s),
        "total_ms": _ms(record.total_s),
        "trace_id": record.trace_id,
    }
    return FORMATS[form]({name: value for name, value in said.items() if value not in ("", None)})


def message_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a message of a program says, as fields of a line."""
    said: dict[str, Any] = {
        "time": _time(record.created),
        "level": record.levelname.lower(),
        "event": "message",
        "logger": record.name,
        "message": record.getMessage(),
    }
    request = getattr(record, "request_id", "")
    if request:
        said["request_id"] = _cut(str(request))
    if record.exc_info and record.exc_info[1] is not None:
        said["exception"] = logging.Formatter().formatException(record.exc_info)
    return said


def _as_json(said: Said) -> str:
    return json.dumps(said, separators=(",", ":"))


def _as_text(said: Said) -> str:
    if said["event"] == "message":
        level = "" if said["level"] == "info" else f"{said['level']}: "
        request = f" (request {_shown(said['request_id'])})" if "request_id" in said else ""
        lines = f"coinfer: {level}{_shown_line(said['message'])}{request}"
        return f"{lines}\n{said['exception']}" if "exception" in said else lines
    words = [f"time={said['time']}", said["transport"], _shown(said["call"])]
    left = {name: said[name] for name in said if name not in _UNNAMED}
    return " ".join([*words, *(f"{name}={_shown(value)}" for name, value in left.items())])


_UNNAMED = ("time", "level", "event", "transport", "call")

FORMATS: Mapping[str, Callable[[Said], str]] = {"text": _as_text, "json": _as_json}
"""By name, what writes the fields of a line."""


def _shown(value: object) -> str:
    """Write a value so that neither a space nor a control character ends it."""
    text = str(value)
    return text if _PLAIN.issuperset(text) and text else json.dumps(text)


def _shown_line(text: str) -> str:
    """Write a message in one line; what terminals obey is escaped."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _cut(text: str, most: int = _MOST_TEXT) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)


def _time(at_s: float) -> str:
    """Return a moment as ISO 8601 has it, in UTC."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
