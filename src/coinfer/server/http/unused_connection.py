"""UnusedConnection: a connection by which nothing came yet. It is small: there may be many."""

from __future__ import annotations

import asyncio
from typing import Any

from coinfer.backends.heap import Turnover
from coinfer.server.http.connection import Connection, refuse
from coinfer.server.http.direct import Direct
from coinfer.server.http.timing_wheel import TimingWheel
from coinfer.server.limits import ServerLimits

__all__ = ["Connections", "UnusedConnection"]

_CONNECTIONS = 64
"""Connections that come before the garbage collector looks at what is new."""


class Connections:
    """Makes the connections of a server, as uvicorn asks for them.

    Args:
        limits: How many there may be, and the times that a client has.
        direct: Answers small inferences.

    Attributes:
        limits: How many there may be, and the times that a client has.
        wheel: Looks for those that let others wait.
        turnover: Of connections.
        open: Those that are open. The set is uvicorn's.
    """

    def __init__(self, limits: ServerLimits, direct: Direct) -> None:
        self.limits = limits
        self.wheel = TimingWheel(asyncio.get_running_loop())
        self.turnover = Turnover(_CONNECTIONS)
        self.open: set[object] = set()
        self._direct = direct
        self._given: dict[str, Any] = {}

    def __call__(self, **given: Any) -> UnusedConnection:
        """Return a new one.

        Args:
            given: What uvicorn gives, each time the same.
        """
        if not self._given:
            self.give(**given)
        return self.unused()

    def give(self, **given: Any) -> None:
        """Take what uvicorn gives to each."""
        self._given = given
        self.open = given["server_state"].connections

    def unused(self) -> UnusedConnection:
        """Return a new one by which nothing came yet."""
        return UnusedConnection(self)

    def used(self) -> Connection:
        """Return one for what comes."""
        direct, limits, wheel = self._direct, self.limits, self.wheel
        return Connection(**self._given, limits=limits, direct=direct, wheel=wheel)


class UnusedConnection(asyncio.Protocol):
    """Waits for the first bytes and leaves them to a `Connection`, with a parser and all it needs.

    Args:
        connections: What it is one of.

    Attributes:
        slot: The wheel's.
    """

    __slots__ = ("__weakref__", "_connections", "_since_s", "_transport", "slot")

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._since_s = 0.0
        self._transport: Any = None
        self.slot = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or close it if there are too many."""
        connections = self._connections
        self._transport = transport
        connections.open.add(self)
        connections.turnover.note()
        if len(connections.open) > connections.limits.connections:
            refuse(transport, b"503 Service Unavailable", b"too many connections are open")
            return
        self._since_s = connections.wheel.add(self, connections.limits.idle_s)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Forget it."""
        self._leave()

    def data_received(self, data: bytes) -> None:
        """Let another take its place: something was said."""
        transport = self._transport
        if transport.is_closing():
            return
        self._leave()
        connection = self._connections.used()
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.since_s = self._since_s
        connection.data_received(data)

    def look(self) -> None:
        """Close it: it was idle for too long."""
        self._transport.abort()

    def shutdown(self) -> None:
        """Close it: uvicorn stops."""
        self._transport.close()

    def _leave(self) -> None:
        self._connections.open.discard(self)
        self._connections.wheel.discard(self)
