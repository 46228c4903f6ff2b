"""Connection: uvicorn's HTTP protocol with limits on the head of a request.

uvicorn limits how long a connection may rest between requests, and not how long a client may take
to send the head of one, nor how long that may be.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from coinfer.server.limits import ServerLimits

__all__ = ["limited_connection"]


def limited_connection(limits: ServerLimits) -> type[asyncio.Protocol]:
    """Return the protocol for connections within limits."""

    class Connection(HttpToolsProtocol):
        """One connection."""

        _timer: asyncio.TimerHandle | None = None
        _head_bytes = 0
        _is_in_head = True

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._is_in_head:
                self._head_bytes += len(data)
            super().data_received(data)
            # What came beside the end of the head is of the body, and does not count.
            if self._is_in_head and self._head_bytes > limits.head_bytes:
                self._end()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if not self._is_in_head:
                self._await_head()

        def on_headers_complete(self) -> None:
            self._is_in_head = False
            self._head_bytes = 0
            self._forget()
            super().on_headers_complete()

        def _await_head(self) -> None:
            self._is_in_head = True
            self._forget()
            self._timer = asyncio.get_running_loop().call_later(limits.head_s, self._end)

        def _end(self) -> None:
            transport: asyncio.Transport = self.transport
            if not transport.is_closing():
                transport.close()

        def _forget(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Connection
