"""What a crowd of new connections costs those in use: at most one event between two readings."""

from __future__ import annotations

import asyncio
import errno
import http.client
import logging
import shutil
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from coinfer.server.handover import Handover
from coinfer.server.http import acceptor, front_end
from coinfer.server.http.acceptor import Acceptor
from coinfer.server.http.front_end import HttpFrontEnd
from coinfer.server.http.unused_connection import Connections
from coinfer.server.limits import ServerLimits
from coinfer.server.listening import bound_socket
from coinfer.server.serving import ServeOptions, Server
from coinfer.testing.models import tiny_linear
from server.servers import new_certificate, serving, until

needs_epoll = pytest.mark.skipif(not acceptor.is_offered(), reason="the system has no epoll")
needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl makes the certificate"
)

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
REFUSED = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
"""A request that is answered as soon as it is read."""

MODELS = {"m": tiny_linear().model}


def http_of(server: Server) -> HttpFrontEnd:
    assert server._front_ends is not None
    [found] = [each for each in server._front_ends._front_ends if isinstance(each, HttpFrontEnd)]
    return found


def state_of(server: Server) -> Any:
    """Return uvicorn's: the open connections, and how many requests were answered."""
    uvicorn = http_of(server)._server
    assert uvicorn is not None
    return uvicorn.server_state


def reset(client: socket.socket) -> None:
    """Close it so that its peer finds it reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@contextmanager
def held(server: Server) -> Iterator[None]:
    """Let the event loop do nothing meanwhile."""
    front_ends = server._front_ends
    assert front_ends is not None
    is_held, goes_on = threading.Event(), threading.Event()

    async def hold() -> None:
        is_held.set()
        goes_on.wait(20)

    holding = front_ends.call(hold)
    assert is_held.wait(20)
    try:
        yield
    finally:
        goes_on.set()
        holding.result(20)


@contextmanager
def followed(server: Server, end: int) -> Iterator[list[tuple[int, int]]]:
    """Let connections come and go together, until so many are open.

    A request comes last, by a connection in use. Yields by iteration of the loop the connections
    that are open and the requests that are answered, once the block is over.
    """
    state, front_ends = state_of(server), server._front_ends
    assert front_ends is not None
    found = list[tuple[int, int]]()

    async def follow() -> None:
        while not found or found[-1][0] != end:
            found.append((len(state.connections), state.total_requests))
            await asyncio.sleep(0)

    with socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=20) as steady:
        steady.sendall(LIVE)
        assert steady.recv(1000).startswith(b"HTTP/1.1 200")
        with held(server):
            yield found
            steady.sendall(REFUSED)
            following = front_ends.call(follow)
        following.result(20)
        assert steady.recv(1000).startswith(b"HTTP/1.1 400")


@needs_epoll
def test_a_request_is_read_before_connections_that_come_with_it() -> None:
    with serving(MODELS) as server, ExitStack() as clients:
        address = ("127.0.0.1", server.ports["http"])
        with followed(server, end=31) as found:
            for _ in range(30):
                clients.enter_context(socket.create_connection(address))
        opened = [n_open for n_open, _ in found]
        assert max(after - before for before, after in pairwise(opened)) == 1
        assert next(n_open for n_open, n_answered in found if n_answered == 2) <= 3


@needs_epoll
def test_a_request_is_read_before_connections_that_go_with_it() -> None:
    with serving(MODELS) as server:
        address, state = ("127.0.0.1", server.ports["http"]), state_of(server)
        clients = [socket.create_connection(address) for _ in range(30)]
        until(lambda: len(state.connections) == 30)
        with followed(server, end=1) as found:
            for number, client in enumerate(clients):
                (reset if number % 2 else socket.socket.close)(client)
        left = [n_open for n_open, _ in found]
        assert max(before - after for before, after in pairwise(left)) == 1
        assert next(n_open for n_open, n_answered in found if n_answered == 2) >= 29


class Accepting:
    """An acceptor in a loop of its own, whose connections answer what they read."""

    def __init__(self, limits: ServerLimits) -> None:
        loop = asyncio.get_running_loop()
        self.bound = bound_socket("127.0.0.1", 0, "a test")
        self.address = self.bound.getsockname()
        self.connections = Connections(limits, cast(Any, None))
        self.open = set[object]()
        self.connections.give(server_state=SimpleNamespace(connections=self.open))
        self.used: list[object] = []
        self.n_accepted = 0
        self.connections.used = self._used  # type: ignore[method-assign, assignment]
        self.connections.turnover = cast(Any, self)
        self.handover = Handover(loop)
        self.acceptor = Acceptor(self.bound, self.connections, self.handover)

    def note(self) -> None:
        self.n_accepted += 1

    def _used(self) -> asyncio.Protocol:
        self.used.append(made := Echo())
        return made


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@asynccontextmanager
async def accepting(limits: ServerLimits | None = None) -> AsyncIterator[Accepting]:
    made = Accepting(limits or ServerLimits())
    made.acceptor.begin()
    try:
        yield made
    finally:
        await made.acceptor.close()
        for each in list(made.open):  # as uvicorn does
            cast(Any, each).shutdown()


async def so(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.001)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


@needs_epoll
def test_requests_that_come_all_the_time_do_not_keep_others_out() -> None:
    async def test() -> None:
        async with accepting() as made:
            made.handover.is_due = True  # each time somebody looks
            with ExitStack() as clients:
                for _ in range(20):
                    clients.enter_context(socket.create_connection(made.address))
                iterations = 0
                while len(made.open) < 20:
                    await asyncio.sleep(0)
                    iterations += 1
                assert iterations <= 20 * 6

    run(test)


@needs_epoll
def test_what_comes_is_read_by_a_transport_and_answered() -> None:
    async def test() -> None:
        async with accepting() as made:
            reader, writer = await asyncio.open_connection(*made.address)
            await so(lambda: len(made.open) == 1)
            assert not made.used
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            assert len(made.used) == 1
            assert not made.open  # the transport's protocol would be
            writer.close()

    run(test)


@needs_epoll
@pytest.mark.parametrize("sent", [b"", b"hello"])
def test_who_goes_at_once_gets_no_transport(sent: bytes) -> None:
    async def test() -> None:
        async with accepting() as made:
            with socket.create_connection(made.address) as client:
                client.sendall(sent)
                if sent:
                    reset(client)
            await so(lambda: made.n_accepted == 1 and not made.open)
            assert not made.acceptor._waiting
            assert not made.used

    run(test)


@needs_epoll
def test_who_is_idle_for_too_long_is_let_go() -> None:
    async def test() -> None:
        async with accepting(ServerLimits(idle_s=0.05)) as made:
            reader, writer = await asyncio.open_connection(*made.address)
            assert await reader.read() == b""
            writer.close()
            assert not made.open

    run(test)


@needs_epoll
def test_without_a_file_for_one_more_it_waits_for_a_moment(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Bound:
        """The system has no file at the first time."""

        def __init__(self, bound: socket.socket) -> None:
            self.bound = bound
            self.n_asked = 0

        def accept(self) -> tuple[socket.socket, object]:
            self.n_asked += 1
            if self.n_asked == 1:
                raise OSError(errno.EMFILE, "Too many open files")
            return self.bound.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.bound, name)

    async def test() -> None:
        async with accepting() as made:
            bound = Bound(made.bound)
            made.acceptor._bound = cast(Any, bound)
            with socket.create_connection(made.address):
                await so(lambda: len(made.open) == 1)
            assert bound.n_asked == 2

    run(test)
    assert "Too many open files" in caplog.text


@needs_epoll
def test_it_closes_with_those_who_wait() -> None:
    async def test() -> None:
        with ExitStack() as clients:
            async with accepting() as made:
                client = clients.enter_context(socket.create_connection(made.address, timeout=20))
                await so(lambda: len(made.open) == 1)
            assert client.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(made.address)

    run(test)


def test_systems_without_epoll_serve_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_end, "is_offered", lambda: False)
    limits = ServerLimits(idle_s=0.3)
    with serving(MODELS, options=ServeOptions(http=0, limits=limits)) as server:
        address = ("127.0.0.1", server.ports["http"])
        with socket.create_connection(address, timeout=20) as client:
            client.sendall(LIVE)
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        with socket.create_connection(address, timeout=20) as client:
            assert client.recv(1000) == b""


@needs_openssl
def test_requests_may_be_encrypted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tls = new_certificate(tmp_path)
    limits = ServerLimits(connections=3, idle_s=30.0)
    with (
        caplog.at_level(logging.WARNING),
        serving(MODELS, options=ServeOptions(http=0, tls=tls, limits=limits)) as server,
        ExitStack() as clients,
    ):
        port, state = server.ports["http"], state_of(server)
        taking = http_of(server)._acceptor
        connecting = set[object]() if taking is None else taking._connecting

        def connected() -> socket.socket:
            client = socket.create_connection(("127.0.0.1", port), timeout=20)
            return clients.enter_context(client)

        asked = http.client.HTTPSConnection(
            "localhost",
            port,
            timeout=20,
            context=ssl.create_default_context(cafile=tls.certificate),
        )
        for _ in range(2):
            asked.request("GET", "/v2/health/live")
            answer = asked.getresponse()
            assert (answer.status, answer.read()) == (200, b"")
        with connected() as stranger, suppress(ConnectionError):
            stranger.sendall(LIVE)  # that is no TLS
            while stranger.recv(1000):
                pass
        until(lambda: not connecting and len(state.connections) == 1)
        connected()
        connected().sendall(b"\x16\x03\x01\x02\x00")  # the beginning of a handshake
        until(lambda: len(state.connections) == 2)
        if acceptor.is_offered():
            assert connected().recv(1) == b""  # the one that begins is counted
        asked.request("GET", "/v2/health/live")
        assert asked.getresponse().status == 200
        asked.close()
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 20  # nobody who only waits is waited for
    assert not [each for each in caplog.records if each.name == "asyncio"]
