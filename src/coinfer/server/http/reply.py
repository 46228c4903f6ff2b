"""Reply: what is sent back to a client. A value, and how errors and JSON become one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson

from coinfer.server.raw_tensors import Buffer
from coinfer.server.status import Status

__all__ = ["Headers", "Reply", "head_of", "of_json", "of_status", "of_text"]

Headers = tuple[tuple[bytes, bytes], ...]

_JSON: Headers = ((b"content-type", b"application/json"),)
_STATUS_LINES = {
    each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus
}


class Reply(NamedTuple):
    """What is sent back.

    Attributes:
        status: Of HTTP.
        headers: But for the length.
        parts: The body; parts are not joined if that would copy much.
    """

    status: int
    headers: Headers
    parts: Sequence[Buffer]


def head_of(reply: Reply, *, keep_alive: bool) -> bytes:
    r"""Write the line and the headers of a reply, with its length.

    >>> head_of(Reply(200, ((b"a", b"b"),), [b"12"]), keep_alive=True)
    b'HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 2\r\n\r\n'
    """
    status, headers, parts = reply
    lines = [_STATUS_LINES[status]]
    for name, value in headers:
        lines += (name, b": ", value, b"\r\n")
    if not keep_alive:
        lines.append(b"connection: close\r\n")
    lines.append(b"content-length: %d\r\n\r\n" % sum(map(len, parts)))
    return b"".join(lines)


def of_json(value: Any, status: int = 200, headers: Headers = ()) -> Reply:
    """Make a reply of a value."""
    return Reply(status, _JSON + headers, (orjson.dumps(value),))


def of_text(text: str, kind: str, headers: Headers = ()) -> Reply:
    """Make a reply of a text of a media type."""
    return Reply(200, ((b"content-type", kind.encode()), *headers), (text.encode(),))


def of_status(status: Status) -> Reply:
    """Make the reply that says an error: `{"error": ...}` with its status.

    >>> from coinfer.errors import InputError
    >>> from coinfer.server.status import status_of
    >>> reply = of_status(status_of(InputError("no")))
    >>> reply.status, reply.parts
    (400, (b'{"error":"no"}',))
    """
    headers: Headers = ()
    if status.retry_after_s is not None:
        seconds = max(1, math.ceil(status.retry_after_s))
        headers = (*headers, (b"retry-after", str(seconds).encode()))
    if status.allowed:
        headers = (*headers, (b"allow", ", ".join(status.allowed).encode()))
    if status.http == 401:
        headers = (*headers, (b"www-authenticate", b"Bearer"))
    text = status.text.encode(errors="replace").decode()
    return of_json({"error": text}, status.http, headers)
