"""HttpConnection: one connection to a server, on which one request is asked at a time."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httptools

__all__ = ["HttpConnection"]


class HttpConnection(asyncio.Protocol):
    """Sends requests as they are given, and takes answers apart.

    Attributes:
        is_open: Whether another request may be sent.
        has_heard: Whether anything came in answer to the last one.
    """

    def __init__(self) -> None:
        self.is_open = False
        self.has_heard = False
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self._parser: Any = None
        self._body: list[bytes] = []

    async def ask(self, parts: list[bytes]) -> tuple[int, bytes]:
        """Send a request and return the status and the body of the answer.

        Raises:
            ConnectionError: the connection broke, or what came was no answer.
        """
        assert self._transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._body = []
        self.has_heard = False
        self._transport.writelines(parts)
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def close(self) -> None:
        """Close it."""
        self.is_open = False
        if self._transport is not None:
            self._transport.close()

    # called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note that it is open."""
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if self._waiter is None:
            self.close()
            return
        self.has_heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._break(f"what the server sent is no HTTP: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        """Say so to whoever waits."""
        self._break(str(error or "the server closed the connection"))

    # called by the parser

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Give the answer to whoever waits."""
        if not self._parser.should_keep_alive():
            self.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result((self._parser.get_status_code(), b"".join(self._body)))

    def _break(self, why: str) -> None:
        self.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionError(why))
