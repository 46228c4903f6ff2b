"""Connection: one connection of a client to uvicorn, with limits on what it may take.

uvicorn limits neither the bytes of a head, nor the time until a request is there, nor how long a
client may leave an answer unread.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from coinfer.server.http.direct import Direct, DirectCycle
from coinfer.server.http.timing_wheel import TimingWheel
from coinfer.server.limits import ServerLimits

__all__ = ["Connection", "refusal_of", "refuse"]

_MOST_HEAD_BYTES = 1 << 16
"""Of a request besides its body: line, headers, and what frames chunks."""

_MOST_UNREAD_BYTES = 1 << 20
"""Of a body that comes after its request was answered, e.g. refused."""

_log = logging.getLogger("coinfer.server.connection")
_log.setLevel(logging.ERROR)  # what clients send wrong would fill the log


def refusal_of(status: bytes, why: bytes) -> bytes:
    """Return the answer that says why."""
    body = b'{"error":"%s"}' % why
    kind = b"content-type: application/json\r\nconnection: close"
    head = b"HTTP/1.1 %s\r\n%s\r\ncontent-length: %d\r\n\r\n" % (status, kind, len(body))
    return head + body


def refuse(transport: Any, status: bytes, why: bytes) -> None:
    """Say why, and close."""
    transport.write(refusal_of(status, why))
    transport.close()


class Connection(HttpToolsProtocol):
    """Closes the connection of a client that takes too much.

    Args:
        limits: The times that a client has.
        direct: Answers small inferences without uvicorn's cycle and its task.
        wheel: Looks at it when one of these times may be over.
        given: What uvicorn gives.

    Attributes:
        since_s: When what is waited for began to be.
        slot: The wheel's.
    """

    def __init__(
        self, *given: Any, limits: ServerLimits, direct: Direct, wheel: TimingWheel, **named: Any
    ) -> None:
        super().__init__(*given, **named)
        self.logger = _log
        self.since_s = 0.0
        self.slot = 0
        self._limits = limits
        self._direct = direct
        self._wheel = wheel
        self._is_begun = False
        self._head_bytes = 0
        self._body_bytes = 0
        self._unread_bytes = 0
        self._unsent_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection."""
        # As uvicorn does, but for the addresses of both ends: nobody asks for them, and each takes
        # a socket object.
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"
        self._rest()
        self._wheel.add(self, min(self._limits.idle_s, self._limits.body_s))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._wheel.discard(self)
        super().connection_lost(exc)
        # These know this connection: nothing is left for the garbage collector, which would keep
        # others waiting. uvicorn's own cycle forgets it once the application returns.
        self.parser = cast(Any, None)
        if type(cast(object, self.cycle)) is DirectCycle:
            self.cycle = cast(Any, None)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless it is too much."""
        if self.transport.is_closing():
            return
        before: Any = self.cycle
        is_free = False
        if before is None or before.response_complete:
            if before is not None and before.more_body:  # it was answered early
                self._unread_bytes += len(data)
                if self._unread_bytes > _MOST_UNREAD_BYTES:
                    self.transport.abort()
                    return
            elif not self._is_begun:  # the parser is between two requests
                is_free = True
                if not self.flow.write_paused and self._take_known(data):
                    return
        self._head_bytes += len(data)
        super().data_received(data)
        cycle: object = self.cycle
        if type(cycle) is DirectCycle and not self.transport.is_closing():
            if cycle.more_body:
                self._leave_to_app(cycle)
            elif is_free and cycle.keep_alive and not self.pipeline:
                cycle.learn(data)
        # A chunk may be as small as what frames it.
        if self._head_bytes > _MOST_HEAD_BYTES + self._body_bytes:
            if self._is_begun and not self.transport.is_closing():
                refuse(
                    self.transport,
                    b"431 Request Header Fields Too Large",
                    b"the headers are too large",
                )
            else:
                self.transport.abort()

    def _take_known(self, data: bytes) -> bool:
        """Answer one whole request whose head is known, without the parser; False: it is not so."""
        direct: Any = self._direct.known(data, self)
        if direct is None:
            return False
        self._unset_keepalive_if_required()
        self._head_bytes = self._body_bytes = 0
        self.cycle = direct
        direct.begin()
        return True

    def on_message_begin(self) -> None:
        """Note that a request begins."""
        # What came before it in the same bytes is not counted, nor is its own beginning.
        self._head_bytes = self._body_bytes = 0
        self._is_begun = True
        self.since_s = self.loop.time()
        # As uvicorn does, but for what only its cycle needs: see `_take_as_usual`.
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        """Find out who answers the request, which is under way now."""
        self._is_begun = False
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if (cycle is None or cycle.response_complete) and not self.flow.write_paused:
            parser = self.parser
            if parser.get_method() == b"POST" and parser.get_http_version() == "1.1":
                direct = self._direct.cycle(self.url, self.headers, self)
                if direct is not None:
                    direct.keep_alive = parser.should_keep_alive()
                    self.cycle = cast(Any, direct)
                    return
        self._take_as_usual()

    def _take_as_usual(self) -> None:
        """Let uvicorn begin a cycle of its own, and the application answer."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()

    def _leave_to_app(self, direct: DirectCycle) -> None:
        """Let the application wait for the rest of a body."""
        self.cycle = cast(Any, None)
        self._take_as_usual()
        if direct.body:
            self.cycle.body += direct.body
            self.cycle.message_event.set()

    def end(self, *, keep_alive: bool) -> None:
        """Note that a request was answered directly."""
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._head_bytes -= len(body)
        self._body_bytes += len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Note that a request was answered."""
        self._rest()
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        # As uvicorn does, but for its timer of idle connections: `look` closes them.
        self.server_state.total_requests += 1
        if self.flow.read_paused:
            self.flow.resume_reading()

    @property
    def _is_answered_early(self) -> bool:
        """Whether the body of an answered request still comes."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and cycle.response_complete and cycle.more_body

    def _rest(self) -> None:
        if not self._is_begun:
            self.since_s = self.loop.time()
        self._unread_bytes = 0

    def look(self) -> float | None:
        """Close it if its client lets others wait; return the seconds until the next look."""
        limits, transport = self._limits, self.transport
        unsent = transport.get_write_buffer_size()
        if unsent and unsent >= self._unsent_bytes > 0:  # it reads no answer
            transport.abort()
            return None
        self._unsent_bytes = unsent
        cycle = cast("RequestResponseCycle | None", self.cycle)
        is_idle = cycle is None or cycle.response_complete
        if not unsent and (is_idle or self._is_begun):
            is_part_there = self._is_begun or self._is_answered_early
            most_s = limits.body_s if is_part_there else limits.idle_s
            left_s = self.since_s + most_s - self.loop.time()
            if left_s <= 0:
                transport.abort()
                return None
            return left_s
        is_body_awaited = cycle is not None and cycle.more_body and not self._body_bytes
        if is_body_awaited and self.loop.time() >= self.since_s + limits.body_s:
            why = b"the body of the request did not come within time"
            refuse(transport, b"408 Request Timeout", why)
        return min(limits.idle_s, limits.body_s)
