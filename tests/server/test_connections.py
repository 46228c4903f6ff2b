"""Connections whose clients are slow, silent or endless cost the others nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import cast
from weakref import ref

import pytest

from coinfer.backends.null import NullBackend
from coinfer.server.http.front_end import HttpFrontEnd
from coinfer.server.limits import ServerLimits
from coinfer.server.serving import ServeOptions, Server
from coinfer.testing.models import tiny_linear
from server.servers import echo, serving, until

MODELS = {"linear": tiny_linear().model, "echo": echo("UINT8")}
INFER = b"POST /v2/models/linear/infer HTTP/1.1\r\nHost: x\r\n"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    limits = ServerLimits(body_s=0.3, idle_s=0.3, connections=30, body_bytes=1 << 20)
    with serving(MODELS, options=ServeOptions(http=0, limits=limits)) as server:
        yield server


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=20)


def connections_of(server: Server) -> set[object]:
    """Return the connections that are open, kept up to date."""
    front_ends = server._front_ends
    assert front_ends is not None
    [http] = [each for each in front_ends._front_ends if isinstance(each, HttpFrontEnd)]
    assert http._server is not None
    return cast("set[object]", http._server.server_state.connections)


def said(server: Server, *sent: bytes) -> bytes:
    """Send this and return what comes until the server closes the connection."""
    with connected(server) as client:
        found = b""
        try:
            for part in sent:
                client.sendall(part)
            while part := client.recv(1 << 16):
                found += part
        except ConnectionError:
            pass
        return found


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        LIVE,
        INFER[:-9],
        INFER + b"Content-Length: 9\r\n\r\n{",
        INFER + b"Content-Length: 2\r\n\r\n{}",
        b"no HTTP\r\n\r\n",
    ],
)
def test_nothing_of_a_closed_connection_waits_for_the_collector(sent: bytes) -> None:
    with serving(MODELS) as server:
        connections = connections_of(server)
        gc.collect()
        gc.disable()
        try:
            with connected(server) as client:
                until(lambda: len(connections) == 1)
                made = [ref(each) for each in connections]
                client.sendall(sent)
                if sent:
                    until(lambda: made[0]() not in connections)
                    made += [ref(each) for each in list(connections)]
                if sent in (LIVE, INFER + b"Content-Length: 2\r\n\r\n{}"):
                    assert client.recv(1 << 16)
            until(lambda: not connections)
            until(lambda: all(each() is None for each in made))
        finally:
            gc.enable()


def test_a_connection_by_which_nothing_came_is_few_objects() -> None:
    with serving(MODELS) as server:
        connections = connections_of(server)
        gc.collect()
        before = len(gc.get_objects())
        clients = [connected(server) for _ in range(200)]
        until(lambda: len(connections) == 200)
        gc.collect()
        objects = (len(gc.get_objects()) - before) / 200
        for client in clients:
            client.close()
    assert objects < 8  # one of them is the client's


def test_connections_that_are_idle_together_are_not_closed_together(hasty: Server) -> None:
    connections, left = connections_of(hasty), list[int]()
    front_ends = hasty._front_ends
    assert front_ends is not None
    until(lambda: not connections)

    async def follow() -> None:
        while not left or connections:
            left.append(len(connections))
            await asyncio.sleep(0)  # an iteration of the loop

    clients = [connected(hasty) for _ in range(25)]
    until(lambda: len(connections) == 25)
    front_ends.call(follow).result(20)
    for client in clients:
        client.close()
    assert left[0] == 25
    assert max(before - after for before, after in pairwise(left)) == 1


def test_a_connection_on_which_nothing_is_asked_is_closed(hasty: Server) -> None:
    assert said(hasty) == b""
    assert said(hasty, LIVE).startswith(b"HTTP/1.1 200")


def test_a_head_that_does_not_come_is_not_waited_for(hasty: Server) -> None:
    assert said(hasty, INFER) == b""
    # Nor on a connection that was used before.
    assert said(hasty, LIVE + INFER).count(b"HTTP/1.1") == 1


def test_a_body_of_which_nothing_comes_is_not_waited_for(hasty: Server) -> None:
    head = INFER + b"Content-Length: 9\r\n\r\n"
    assert said(hasty, head).startswith(b"HTTP/1.1 408")
    assert b"did not come within" in said(hasty, head + b"{")


def test_a_head_without_end_is_refused(hasty: Server) -> None:
    line = b"X-A: " + b"a" * 65_536 + b"\r\n"
    assert len(said(hasty, INFER, *[line] * 400)) < 1000
    assert len(said(hasty, b"GET /", *[b"a" * 65_536] * 400)) < 1000
    assert len(said(hasty, INFER + b"X-A: ", *[b"a" * 65_536] * 400)) < 1000


def test_trailers_and_chunk_extensions_without_end_are_refused(hasty: Server) -> None:
    head = INFER + b"Transfer-Encoding: chunked\r\n\r\n"
    assert b" 200 " not in said(hasty, head, b"1;", *[b"a" * 65_536] * 400)
    assert b" 200 " not in said(hasty, head, b"0\r\nX: ", *[b"a" * 65_536] * 400)


def test_a_body_that_is_refused_is_not_read_forever(hasty: Server) -> None:
    head = INFER + b"Transfer-Encoding: chunked\r\n\r\n"
    part = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
    with connected(hasty) as client, pytest.raises(ConnectionError):
        client.sendall(head + 4096 * part)


def test_connections_beyond_the_limit_are_closed_at_once(hasty: Server) -> None:
    clients = [connected(hasty) for _ in range(30)]
    try:
        clients[-1].sendall(LIVE)
        assert clients[-1].recv(100).startswith(b"HTTP/1.1 200")
        assert said(hasty).startswith(b"HTTP/1.1 503")
    finally:
        for client in clients:
            client.close()


def test_a_client_that_reads_no_answers_is_let_go(hasty: Server) -> None:
    size = 1_000_000
    tensor = {"name": "x", "datatype": "UINT8", "shape": [1, size]}
    tensor["parameters"] = {"binary_data_size": size}
    said = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    head = json.dumps(said).encode()
    lengths = f"Inference-Header-Content-Length: {len(head)}\r\nContent-Length: {len(head) + size}"
    line = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\n"
    request = line + lengths.encode() + b"\r\n\r\n" + head + bytes(size)
    with connected(hasty) as client, pytest.raises(ConnectionError):
        client.sendall(request * 60)


def test_who_is_not_waited_for_at_the_end_is_told_so() -> None:
    backend, limits = NullBackend(service_s=lambda *_: 1.7), ServerLimits(drain_s=0.5)
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}'
    options = ServeOptions(http=0, limits=limits)
    with serving(MODELS, options=options, backend="null", backends={"null": backend}) as server:
        client = connected(server)
        client.sendall(INFER + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        while not server.service.engine or not server.service.engine.n_unanswered:
            time.sleep(0.001)
    with client:
        said = client.recv(1000)
    assert said.startswith(b"HTTP/1.1 503")
    assert said.endswith(b'{"error":"the server is stopping and waits no longer"}')
