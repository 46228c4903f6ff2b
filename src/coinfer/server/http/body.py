"""Body: the bytes of a request, within limits. Copied once, into memory that suits its tensors."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import numpy as np

from coinfer.errors import InputError, TooLargeError
from coinfer.server.limits import ServerLimits
from coinfer.server.raw_tensors import Buffer
from coinfer.server.room import Held
from coinfer.units import format_bytes

__all__ = ["ClientGoneError", "Receive", "read_body", "unpacked"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_ALIGNMENT = 64
_SMALL_BYTES = 16 * 1024
"""Up to here, whoever reads a tensor that is not aligned copies it: that costs less than this."""


class ClientGoneError(Exception):
    """The client closed the connection before it had sent all."""


async def read_body(
    receive: Receive, length: int | None, limits: ServerLimits, held: Held, header_length: int = 0
) -> Buffer:
    """Return the body of a request.

    Args:
        receive: Of ASGI.
        length: Bytes that the client announced; None: it did not.
        limits: How much is taken, and in which time.
        held: What the request holds of the room for all; what comes is added.
        header_length: Bytes before the first tensor, which is to lie at a multiple of 64 bytes.

    Raises:
        TooLargeError: it is longer than allowed.
        InputError: it did not come in time, or has another length than announced.
        RejectedError: the requests under way leave no room for it.
        ClientGoneError: nobody waits for an answer any more.
    """
    if length is not None and length > limits.body_bytes:
        raise _too_large(limits)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    if not message.get("more_body"):
        first: bytes = message.get("body", b"")
        if len(first) > limits.body_bytes:
            raise _too_large(limits)
        held.take(len(first))
        is_small = len(first) <= _SMALL_BYTES
        return first if is_small else _aligned([first], len(first), header_length)
    try:
        async with asyncio.timeout(limits.body_s):
            return await _assembled(receive, message["body"], length, limits, held, header_length)
    except TimeoutError:
        raise InputError(
            f"the body of the request did not come within {limits.body_s:g} s"
        ) from None


async def _assembled(
    receive: Receive,
    first: bytes,
    length: int | None,
    limits: ServerLimits,
    held: Held,
    header_length: int,
) -> Buffer:
    """Put the parts of a body together; memory is taken as it comes, not as it is announced."""
    parts, size = [first], len(first)
    held.take(size)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part = message.get("body", b"")
        size += len(part)
        if size > limits.body_bytes:
            raise _too_large(limits)
        held.take(len(part))
        parts.append(part)
        if not message.get("more_body"):
            break
    if length is not None and size != length:
        raise InputError(f"the body has {size} bytes, and {length} were announced")
    return _aligned(parts, size, header_length)


def _aligned(parts: list[bytes], size: int, header_length: int) -> Buffer:
    """Join parts so that what comes after the header lies at a multiple of 64 bytes."""
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    address = memory.__array_interface__["data"][0]
    start = -(address + header_length) % _ALIGNMENT
    view = memory.data[start : start + size]
    at = 0
    for part in parts:
        view[at : at + len(part)] = part
        at += len(part)
    return view


def unpacked(body: Buffer, encoding: str, limits: ServerLimits, header_length: int = 0) -> Buffer:
    """Unpack a body that was compressed.

    Args:
        body: As it came.
        encoding: `gzip`, `deflate` or `identity`; empty: the last.
        limits: How much may come of it.
        header_length: As of `read_body`, of what comes of it.

    Raises:
        InputError: another encoding, or it is damaged.
        TooLargeError: more comes of it than allowed.

    >>> import gzip
    >>> bytes(unpacked(gzip.compress(b"abc"), "gzip", ServerLimits()))
    b'abc'
    """
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        return body
    if kind not in ("gzip", "deflate"):
        raise InputError(f"content encoding {kind[:40]!r} is unknown; send gzip, deflate or none")
    packed = zlib.decompressobj(wbits=47)  # finds out whether it is gzip or zlib
    try:
        data = packed.decompress(body, limits.body_bytes + 1)
    except zlib.error:
        raise InputError(f"the body of the request is not {kind}") from None
    if len(data) > limits.body_bytes:
        raise _too_large(limits)
    if not packed.eof:
        raise InputError(f"the body of the request ends within its {kind} data")
    if packed.unused_data:
        raise InputError(f"the body of the request has more after its {kind} data")
    return _aligned([data], len(data), header_length) if header_length else data


def _too_large(limits: ServerLimits) -> TooLargeError:
    return TooLargeError(
        f"the body of the request is larger than {format_bytes(limits.body_bytes)}, the most that "
        "is taken; send less, or start the server with a larger --max-body"
    )
