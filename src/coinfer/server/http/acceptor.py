"""Acceptor: takes new connections, one event per iteration of the loop. For systems with epoll.

The socket that is listened on, and connections by which nothing came yet, are in a set of the
system's own, which is one file to the event loop. So however many of them come, go, or say their
first word together, one of these is done between two readings of the connections in use. And what
only waits, or goes without a word, needs no transport.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import ssl
from contextlib import suppress
from typing import Any

from coinfer.server.handover import Handover
from coinfer.server.http.connection import refusal_of
from coinfer.server.http.unused_connection import Connections

__all__ = ["Acceptor", "is_offered"]

_MOST_DEFERRALS = 3
"""In a row: requests come first, and new connections come too."""

_PAUSE_S = 0.1
"""After the system had no file, or no memory, for one more connection."""

_log = logging.getLogger(__name__)


def is_offered() -> bool:
    """Tell whether the system has what it takes."""
    return hasattr(select, "epoll")


class Accepted:
    """A connection by which nothing came yet: a socket, and no transport.

    Args:
        acceptor: Of whose it is.
        client: The socket.

    Attributes:
        client: The socket.
        slot: The wheel's.
    """

    __slots__ = ("__weakref__", "_acceptor", "client", "slot")

    def __init__(self, acceptor: Acceptor, client: socket.socket) -> None:
        self._acceptor = acceptor
        self.client = client
        self.slot = 0

    def look(self) -> None:
        """Close it: it was idle for too long."""
        self.shutdown()

    def shutdown(self) -> None:
        """Close it. uvicorn calls this when it stops."""
        self._acceptor.forget(self)
        self.client.close()


class Acceptor:
    """Accepts connections, and gives each a transport once something comes by it.

    Args:
        bound: The socket that is listened on. It is closed with this.
        connections: Makes connections, and knows the open ones.
        handover: Knows whether a request is about to be performed in the loop.
        tls: None: without.
    """

    def __init__(
        self,
        bound: socket.socket,
        connections: Connections,
        handover: Handover,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._bound = bound
        self._connections = connections
        self._handover = handover
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._events = select.epoll()
        self._waiting: dict[int, Accepted] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_planned = False
        self._n_deferred = 0

    def begin(self) -> None:
        """Accept from now on."""
        self._listen()
        self._loop.add_reader(self._events.fileno(), self._plan)

    async def close(self) -> None:
        """Accept no more. Connections by which something came are in use then; others wait."""
        self._loop.remove_reader(self._events.fileno())
        self._events.close()
        self._bound.close()
        for _ in range(2):  # those without TLS need no more
            await asyncio.sleep(0)
        left = list(self._connecting)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def forget(self, accepted: Accepted) -> None:
        """Wait no more for what comes by a connection."""
        file = accepted.client.fileno()
        if self._waiting.pop(file, None) is None:
            return
        self._connections.open.discard(accepted)
        self._connections.wheel.discard(accepted)
        if not self._events.closed:
            # Closing it is not enough: a process that was forked meanwhile may hold it open.
            self._events.unregister(file)

    def _listen(self) -> None:
        if not self._events.closed:
            self._events.register(self._bound.fileno(), select.EPOLLIN)

    def _plan(self) -> None:
        """Do one of the events: not now, others are read in this iteration."""
        if not self._is_planned:
            self._is_planned = True
            self._loop.call_soon(self._act)

    def _act(self) -> None:
        """Do one of the events, unless a request is about to be performed."""
        if self._handover.is_due and self._n_deferred < _MOST_DEFERRALS:
            self._n_deferred += 1
            self._loop.call_soon(self._act)
            return
        self._is_planned = False
        self._n_deferred = 0
        if self._events.closed:
            return
        for file, event in self._events.poll(0, 1):
            accepted = self._waiting.get(file)
            if accepted is None:
                self._accept()
            elif _is_gone(accepted.client, event):
                accepted.shutdown()
            else:
                self._connect(accepted)

    def _accept(self) -> None:
        """Take the connection that comes next, or close it if there are too many."""
        try:
            client, _ = self._bound.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # it went before
        except OSError as error:
            _log.warning("no connection can be accepted for a moment: %s", error.strerror)
            self._events.unregister(self._bound.fileno())
            self._loop.call_later(_PAUSE_S, self._listen)
            return
        client.setblocking(False)
        connections = self._connections
        connections.turnover.note()
        if len(connections.open) + len(self._connecting) >= connections.limits.connections:
            with suppress(OSError), client:
                if self._tls is None:
                    why = b"too many connections are open"
                    client.send(refusal_of(b"503 Service Unavailable", why))
            return
        accepted = Accepted(self, client)
        file = client.fileno()
        self._events.register(file, select.EPOLLIN | select.EPOLLRDHUP)
        self._waiting[file] = accepted
        connections.open.add(accepted)
        connections.wheel.add(accepted, connections.limits.idle_s)

    def _connect(self, accepted: Accepted) -> None:
        """Let a transport read what came."""
        self.forget(accepted)
        task = self._loop.create_task(self._connected(accepted.client))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connected(self, client: socket.socket) -> None:
        # With TLS, what came is none of a request yet.
        make: Any = self._connections.used if self._tls is None else self._connections.unused
        with suppress(OSError):  # it went, or does not speak TLS
            await self._loop.connect_accepted_socket(make, client, ssl=self._tls)


def _is_gone(client: socket.socket, event: int) -> bool:
    """Tell whether nobody is there any more, and nothing came before."""
    if event & (select.EPOLLHUP | select.EPOLLERR):
        return True
    if event & select.EPOLLRDHUP:  # who only ends sending still reads an answer
        try:
            return not client.recv(1, socket.MSG_PEEK)
        except OSError:
            return True
    return False
