"""KnownHeads: heads of requests that were read before; the same bytes need not be parsed again.

Clients that ask a model again and again send the same line and headers each time.
"""

from __future__ import annotations

from typing import NamedTuple

from coinfer.server.http.infer_steps import Sent

__all__ = ["KnownHead", "KnownHeads"]

_MOST_BYTES = 2048
"""Of a head that is kept."""

_MOST = 256
"""Heads that are kept; then all are forgotten, and those that still come are kept again."""

_END = b"\r\n\r\n"
_OF_ONE_REQUEST = (b"traceparent", b"tracestate", b"x-request-id")
_SECRET = (b"authorization", b"proxy-authorization", b"cookie")


class KnownHead(NamedTuple):
    """What was read of a head.

    Attributes:
        model: Named by its path.
        version: Named by its path; empty: none is.
        headers: The headers.
        n_bytes: Of the head.
        n_body_bytes: Of the body, as the head says.
    """

    model: str
    version: str
    headers: Sent
    n_bytes: int
    n_body_bytes: int


class KnownHeads:
    r"""The heads of small inferences that were read lately. For the thread of an event loop.

    >>> known = KnownHeads()
    >>> head = b"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: 2\r\n\r\n"
    >>> known.learn(head + b"{}", "m", "", {b"content-length": b"2"})
    >>> known.find(head + b"[]").model, known.find(head + b"[") is None
    ('m', True)
    """

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[bytes, KnownHead] = {}

    def find(self, data: bytes) -> KnownHead | None:
        """Return what is known of the head of one whole request; None: nothing."""
        end = data.find(_END, 0, _MOST_BYTES) + 4
        found = self._found.get(data[:end])
        if found is None or found.n_body_bytes != len(data) - end:
            return None
        return found

    def learn(self, data: bytes, model: str, version: str, headers: Sent) -> None:
        """Keep the head of a request that came alone and as a whole, unless it is of that only.

        Args:
            data: All of its bytes; if they are anything else, nothing is kept.
            model: As it was read.
            version: As it was read.
            headers: As they were read; the body has the length that they say.
        """
        end = data.find(_END, 0, _MOST_BYTES) + 4
        # Where the parser found another end, that and the length do not add up.
        if end < len(_END) or end + (length := int(headers[b"content-length"])) != len(data):
            return
        for name in (*_OF_ONE_REQUEST, *_SECRET):
            if name in headers:
                return
        if len(self._found) >= _MOST:
            self._found.clear()
        self._found[data[:end]] = KnownHead(model, version, headers, end, length)
