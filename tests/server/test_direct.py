"""Small inferences are answered without ASGI, and nothing about them is different."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from coinfer.backends.null import Faults, NullBackend
from coinfer.server.http.app import HttpApp
from coinfer.server.limits import ServerLimits
from coinfer.server.serving import ServeOptions, Server
from coinfer.testing.models import tiny_linear
from server.raw_answer import read_answer
from server.servers import futures_of, serving, until
from server.test_http import x

MODELS = {"linear": tiny_linear().model}
BODY = json.dumps(x(data=[0] * 4, shape=[1, 4])).encode()


def request(body: bytes = BODY, path: str = "/v2/models/linear/infer", headers: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def named(name: str) -> bytes:
    return request(json.dumps({**json.loads(BODY), "id": name}).encode())


@pytest.fixture
def slow() -> Iterator[tuple[Server, Faults]]:
    faults = Faults()
    backends = {"null": NullBackend(faults=faults)}
    options = ServeOptions(http=0, limits=ServerLimits(drain_s=0.5))
    with serving(MODELS, backend="null", backends=backends, options=options) as server:
        try:
            yield server, faults
        finally:
            faults.release()


@pytest.fixture
def n_by_asgi(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    answer = HttpApp.__call__

    async def counted(app: HttpApp, scope: Any, receive: Any, send: Any) -> None:
        found.append(scope["path"])
        await answer(app, scope, receive, send)

    monkeypatch.setattr(HttpApp, "__call__", counted)
    return found


class Client:
    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=20)
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], Any]:
        status, headers, body = read_answer(self.file)
        return status, headers, json.loads(body)

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def client(slow: tuple[Server, Faults], n_by_asgi: list[str]) -> Iterator[Client]:
    made = Client(slow[0])
    yield made
    made.close()


def test_what_comes_at_once_is_answered_directly(client: Client, n_by_asgi: list[str]) -> None:
    for path in ("/v2/models/linear/infer", "/v2/models/linear/versions/1/infer"):
        client.send(request(path=path))
        status, headers, said = client.answer()
        assert (status, headers["content-type"]) == (200, "application/json")
        assert said["outputs"][0]["shape"] == [1, 3]
    for wrong, status in ((b"{", 400), (b"{}", 400)):
        client.send(request(wrong))
        assert client.answer()[0] == status
    client.send(request(path="/v2/models/absent/infer"))
    assert client.answer()[0] == 404
    assert n_by_asgi == []


@pytest.mark.parametrize(
    "sent",
    [
        request(headers="Accept-Encoding: gzip\r\n"),
        request(path="/v2/models/%6Cinear/infer"),
        request(path="/v2/models/linear/infer?a=b"),
        request(headers="Content-Encoding: identity\r\n"),
        request(b" " * 20_000 + BODY),
    ],
)
def test_what_is_unusual_goes_through_asgi(
    client: Client, n_by_asgi: list[str], sent: bytes
) -> None:
    client.send(sent)
    assert client.answer()[0] == 200
    assert len(n_by_asgi) == 1


def test_a_body_that_comes_later_is_waited_for_by_asgi(
    client: Client, n_by_asgi: list[str]
) -> None:
    sent = request()
    for cut in (len(sent) - len(BODY), len(sent) - 5):
        client.send(sent[:cut])
        until(lambda: len(n_by_asgi) > 0)
        client.send(sent[cut:])
        assert client.answer()[0] == 200
        n_by_asgi.clear()
    client.send(sent)  # and the next one is answered directly again
    assert client.answer()[0] == 200
    assert n_by_asgi == []


def test_requests_that_come_together_are_answered_in_order(client: Client) -> None:
    live = b"GET /v2/models/linear HTTP/1.1\r\nHost: x\r\n\r\n"
    client.send(named("a") + named("b") + live + named("c"))
    said = [client.answer() for _ in range(4)]
    assert [each[0] for each in said] == [200] * 4
    assert [each[2].get("id", each[2].get("name")) for each in said] == ["a", "b", "linear", "c"]


def test_a_client_that_wants_no_more_is_told_and_the_connection_closed(client: Client) -> None:
    client.send(request(headers="Connection: close\r\n"))
    status, headers, _ = client.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert client.file.read() == b""


def test_who_waits_when_the_server_ends_is_told(
    slow: tuple[Server, Faults], client: Client
) -> None:
    server, faults = slow
    faults.hang(model="linear")
    client.send(request())
    assert faults.wait_until_hanging()
    # The engine waits for the run as long as the front end; the test must not.
    assert server._front_ends is not None
    server._front_ends.stop(0.2)
    status, _, said = client.answer()
    assert (status, "waits no longer" in said["error"]) == (503, True)


def test_nothing_is_held_once_all_is_answered_or_gone(slow: tuple[Server, Faults]) -> None:
    server, faults = slow
    front_ends = server._front_ends
    assert front_ends is not None
    direct = front_ends._front_ends[0]._direct  # type: ignore[attr-defined]
    faults.hang(model="linear")
    gone = Client(server)
    gone.send(request())
    assert faults.wait_until_hanging()
    assert direct.room.held_bytes == len(BODY)
    gone.close()
    until(lambda: direct.room.held_bytes == 0)
    faults.release()
    assert not direct.under_way
    other = Client(server)
    other.send(request())
    assert other.answer()[0] == 200
    assert (direct.room.held_bytes, len(direct.under_way)) == (0, 0)
    other.close()


def test_nothing_of_an_answered_request_waits_for_the_collector(
    slow: tuple[Server, Faults], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with futures_of(slow[0], monkeypatch) as futures:
        for number in range(5):
            client.send(request() if number % 2 else named("a"))
            assert client.answer()[0] == 200
        assert len(futures) == 5
        until(lambda: all(each() is None for each in futures[:-1]))
