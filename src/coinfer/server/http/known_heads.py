"""KnownHeads: heads of requests that were read before; the same bytes need not be parsed again.

Clients that ask a model again and again send the same line and headers each time.
"""

from __future__ import annotations

from typing import NamedTuple

from coinfer.server.http.infer_steps import Sent

__all__ = ["Head", "KnownHeads"]

_MOST_BYTES = 2048
"""Of a head that is kept."""

_MOST = 256
"""Heads that are kept; then all are forgotten, and those that still come are kept again."""

_END = b"\r\n\r\n"
_OF_ONE_REQUEST = (b"traceparent", b"tracestate", b"x-request-id")
_SECRET = (b"authorization", b"proxy-authorization", b"cookie")


class Head(NamedTuple):
    """What was read of the head of a request for an inference.

    Attributes:
        model: Named by its path.
        version: Named by its path; empty: none is.
        headers: The headers.
        n_bytes: Of the head, if it is kept; 0: the parser read it.
        n_body_bytes: Of the body, as the head says, if it is kept.
        header_length: Bytes of the body that are JSON, if the head is kept; None: all.
    """

    model: str
    version: str
    headers: Sent
    n_bytes: int = 0
    n_body_bytes: int = 0
    header_length: int | None = None


class KnownHeads:
    r"""The heads of small inferences that were read lately. For the thread of an event loop.

    >>> known = KnownHeads()
    >>> head = b"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: 2\r\n\r\n"
    >>> known.learn(head + b"{}", Head("m", "", {b"content-length": b"2"}), None)
    >>> known.find(head + b"[]").model, known.find(head + b"[") is None
    ('m', True)
    """

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[bytes, Head] = {}

    def find(self, data: bytes) -> Head | None:
        """Return what is known of the head of one whole request; None: nothing."""
        end = data.find(_END, 0, _MOST_BYTES) + 4
        found = self._found.get(data[:end])
        if found is None or found.n_body_bytes != len(data) - end:
            return None
        return found

    def learn(self, data: bytes, head: Head, header_length: int | None) -> None:
        """Keep the head of a request that came alone and as a whole, unless it is of that only.

        Args:
            data: All of its bytes; if they are anything else, nothing is kept.
            head: As it was read; the body has the length that its headers say.
            header_length: Bytes of the body that are JSON; None: all.
        """
        end = data.find(_END, 0, _MOST_BYTES) + 4
        # Where the parser found another end, that and the length do not add up.
        length = int(head.headers[b"content-length"])
        if end < len(_END) or end + length != len(data):
            return
        for name in (*_OF_ONE_REQUEST, *_SECRET):
            if name in head.headers:
                return
        if len(self._found) >= _MOST:
            self._found.clear()
        self._found[data[:end]] = Head(*head[:3], end, length, header_length)
