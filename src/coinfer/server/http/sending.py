"""Sending: a reply as the messages of ASGI, packed if the client takes that."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from coinfer.server.http.reply import Reply
from coinfer.server.raw_tensors import Buffer

__all__ = ["JOINED_BYTES", "QUICK_BYTES", "Send", "packed", "send_reply"]

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JOINED_BYTES = 64 * 1024
"""Parts up to here are joined: one system call is dearer than copying them."""

QUICK_BYTES = 1 << 19
"""Up to here, reading or writing takes about a millisecond, and less than handing it on."""

_PACKED_BYTES = 512
_LEVEL = 1


async def send_reply(reply: Reply, send: Send) -> None:
    """Send a reply."""
    status, headers, parts = reply
    size = sum(map(len, parts))
    length = (b"content-length", str(size).encode())
    await send({"type": "http.response.start", "status": status, "headers": (*headers, length)})
    if len(parts) == 1 and type(parts[0]) is bytes:
        await send({"type": "http.response.body", "body": parts[0]})
    elif size <= JOINED_BYTES:
        await send({"type": "http.response.body", "body": b"".join(parts)})
    else:
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def packed(reply: Reply, accepted: str) -> Reply:
    """Pack the body of a reply if the client takes gzip or deflate and it is worth it.

    >>> from coinfer.server.http.reply import of_text
    >>> reply = packed(of_text("a" * 1000, "text/plain"), "gzip, deflate")
    >>> reply.headers[-1], len(reply.parts[0]) < 100
    ((b'content-encoding', b'gzip'), True)
    """
    kinds = [each.split(";")[0].strip() for each in accepted.lower().split(",")]
    kind = next((each for each in kinds if each in ("gzip", "deflate")), None)
    if kind is None or sum(map(len, reply.parts)) < _PACKED_BYTES:
        return reply
    body: Buffer = b"".join(reply.parts)
    data = gzip.compress(body, _LEVEL, mtime=0) if kind == "gzip" else zlib.compress(body, _LEVEL)
    return Reply(reply.status, (*reply.headers, (b"content-encoding", kind.encode())), (data,))
