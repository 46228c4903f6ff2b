"""Status: how the protocols say an error. The table is the classes of `coinfer.errors` themselves.

Both front ends answer with what `status_of` returns and decide nothing more about errors.
"""

from __future__ import annotations

import logging
from concurrent.futures import CancelledError
from typing import NamedTuple

from coinfer.errors import CapacityError, CoinferError, MethodNotAllowedError

__all__ = ["CLIENT_GONE", "Status", "status_of"]

_log = logging.getLogger(__name__)

_MOST_TEXT = 1500
"""Characters of an error. Clients of gRPC take at most 8 KiB of them, percent-encoded."""


class Status(NamedTuple):
    """An error as a client sees it.

    Attributes:
        http: Status code of HTTP.
        grpc: Name of the status code of gRPC.
        text: One line.
        retry_after_s: Seconds after which the same may succeed; None if nobody can tell.
        reason: The kind of error for metrics.
        allowed: The methods of HTTP that would have been right; empty: any was.
    """

    http: int
    grpc: str
    text: str
    retry_after_s: float | None = None
    reason: str = "OTHER"
    allowed: tuple[str, ...] = ()


CLIENT_GONE = Status(499, "CANCELLED", "the client went before the answer", None, "CANCELED")
"""What becomes of a request whose client does not wait any longer; only logs show it."""


def status_of(error: BaseException, request_id: str = "") -> Status:
    """Say an error to a client. What nobody raises on purpose is logged, and not shown.

    Args:
        error: What was raised.
        request_id: Of the request, for the log; empty: it has none.

    >>> from coinfer.errors import UnknownNameError
    >>> status_of(UnknownNameError.of("model", "a", ["b"]))[:2]
    (404, 'NOT_FOUND')
    """
    match error:
        case MethodNotAllowedError():
            text = _line(str(error))
            return Status(405, error.grpc_status, text, allowed=error.allowed)
        case CoinferError():
            text = _line(str(error))
            after_s = error.retry_after_s if isinstance(error, CapacityError) else None
            return Status(error.http_status, error.grpc_status, text, after_s, _reason(error))
        case CancelledError():
            return Status(499, "CANCELLED", "the request was cancelled", None, "CANCELED")
        case MemoryError():
            return Status(503, "RESOURCE_EXHAUSTED", "out of memory", 1.0)
    said = {"request_id": request_id}
    _log.error("a request failed in the server", exc_info=error, extra=said)
    return Status(500, "INTERNAL", "internal error; the server's log has the details")


def _line(text: str) -> str:
    """Write a text as one line that is not too long."""
    line = " ".join(text[: 4 * _MOST_TEXT].split())
    return line if len(line) <= _MOST_TEXT else f"{line[: _MOST_TEXT - 300]} [...] {line[-200:]}"


def _reason(error: CoinferError) -> str:
    """Return Triton's word for the kind of failure."""
    if error.http_status in (429, 503, 504):
        return "REJECTED"
    return "BACKEND" if error.http_status == 500 else "OTHER"
