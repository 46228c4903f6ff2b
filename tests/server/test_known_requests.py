"""Requests that begin with bytes that were read before are answered as if they had not been."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.shared_memory import SharedMemory
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from coinfer.model.datatypes import BYTES, DTYPES
from coinfer.server.access import Tenant
from coinfer.server.asked import Asked
from coinfer.server.checked import Checked
from coinfer.server.http.connection import Connection
from coinfer.server.http.direct import Direct
from coinfer.server.http.front_end import HttpFrontEnd
from coinfer.server.raw_tensors import to_raw
from coinfer.server.served_model import served
from coinfer.server.serving import ServeOptions, Server
from coinfer.server.shared_memory import IS_OFFERED
from coinfer.testing.models import tiny_linear
from server.raw_answer import read_answer
from server.servers import ECHO, echo, serving, tiny_models

TOKEN = "a" * 16


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(tiny_models()) as server:
        yield server


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each piece that came was one whole request with a known head."""
    found: list[bool] = []
    take = Connection._take_known

    def counted(connection: Connection, data: bytes) -> bool:
        found.append(take(connection, data))
        return found[-1]

    monkeypatch.setattr(Connection, "_take_known", counted)
    return found


def direct_of(server: Server) -> Direct:
    front_ends = server._front_ends
    assert front_ends is not None
    [http] = [each for each in front_ends._front_ends if isinstance(each, HttpFrontEnd)]
    assert http._direct is not None
    return http._direct


class Client:
    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=20)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def ask(
        self, model: str, datatype: str, raw: bytes, shape: list[int], *more: str, **said: Any
    ) -> tuple[int, dict[str, Any], bytes]:
        tensor = {"name": "x", "datatype": datatype, "shape": shape}
        tensor["parameters"] = {"binary_data_size": len(raw)}
        parameters = {"binary_data_output": True}
        head = json.dumps({"inputs": [tensor], "parameters": parameters, **said}).encode()
        lines = (
            f"POST /v2/models/{model}/infer HTTP/1.1",
            "Host: x",
            *more,
            f"Inference-Header-Content-Length: {len(head)}",
            f"Content-Length: {len(head) + len(raw)}",
        )
        self.socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + head + raw)
        return self.answer()

    def answer(self) -> tuple[int, dict[str, Any], bytes]:
        status, headers, body = read_answer(self.file)
        length = int(headers.get("inference-header-content-length", len(body)))
        return status, json.loads(body[:length]), body[length:]


@pytest.mark.parametrize("datatype", ECHO)
def test_the_second_request_is_answered_as_the_first(
    server: Server, known: list[bool], datatype: str
) -> None:
    with Client(server) as client:
        for number in range(3):
            if datatype == BYTES:
                array = np.array([["ab", "cde"[number:]]], object)
            else:
                array = np.array([[1, number % 2]], DTYPES[datatype])
            raw = bytes(to_raw(array))
            status, said, found = client.ask(f"{datatype}", datatype, raw, [1, 2])
            assert (status, found) == (200, raw)
            assert said["outputs"][0]["shape"] == [1, 2]
            assert "id" not in said
    assert datatype == BYTES or known[1:] == [True, True]  # texts differ in length


def test_what_a_datatype_forbids_is_still_refused(server: Server) -> None:
    with Client(server) as client:
        assert client.ask("BOOL", "BOOL", b"\0\1", [1, 2])[0] == 200
        assert client.ask("BOOL", "BOOL", b"\0\2", [1, 2])[0] == 400


def test_other_json_of_the_same_length_is_read_anew(server: Server, known: list[bool]) -> None:
    raw = bytes(8)
    with Client(server) as client:
        for shape in ([1, 2], [2, 1], [1, 2], [1, 3]):
            status, said, _ = client.ask("FP32", "FP32", raw, shape)
            if shape == [1, 3]:
                assert (status, "takes 12" in said["error"]) == (400, True)
            else:
                assert said["outputs"][0]["shape"] == shape
    assert known[1:] == [True, True, True]


def test_ids_and_outputs_are_those_of_each_request(server: Server) -> None:
    with Client(server) as client:
        for name in ("one", "two", "one"):
            assert client.ask("FP32", "FP32", bytes(8), [1, 2], id=name)[1]["id"] == name
        as_json = [{"name": "y", "parameters": {"binary_data": False}}]
        for _ in range(2):
            _, said, rest = client.ask("FP32", "FP32", bytes(8), [1, 2], outputs=as_json)
            assert (said["outputs"][0]["data"], rest) == ([0, 0], b"")


def test_a_known_head_with_less_body_waits_for_the_rest(server: Server) -> None:
    with Client(server) as client:
        assert client.ask("FP32", "FP32", bytes(8), [1, 2])[0] == 200
        head = json.dumps(
            {
                "inputs": [
                    {
                        "name": "x",
                        "datatype": "FP32",
                        "shape": [1, 2],
                        "parameters": {"binary_data_size": 8},
                    }
                ],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        lines = "POST /v2/models/FP32/infer HTTP/1.1\r\nHost: x\r\n"
        lines += f"Inference-Header-Content-Length: {len(head)}\r\n"
        lines += f"Content-Length: {len(head) + 8}\r\n\r\n"
        sent = [lines.encode() + head, bytes(4), bytes(4)]
        for part in sent:
            client.socket.sendall(part)
        assert client.answer()[0] == 200
        client.socket.sendall(b"".join(sent) * 3)  # and three at once are answered in their order
        assert [client.answer()[0] for _ in range(3)] == [200] * 3


def test_a_model_that_is_gone_is_not_found_though_its_head_is_known() -> None:
    with serving({"m": echo("FP32")}) as server, Client(server) as client:
        assert client.ask("m", "FP32", bytes(8), [1, 2])[0] == 200
        server.service.catalogue.replace("m", [])
        assert client.ask("m", "FP32", bytes(8), [1, 2])[0] == 404


def test_a_version_that_takes_over_is_checked_and_told_anew() -> None:
    with serving({"m": echo("FP32")}) as server, Client(server) as client:
        for _ in range(3):
            assert client.ask("m", "FP32", bytes(8), [1, 2])[1]["model_version"] == "1"
        catalogue = server.service.catalogue
        second = replace(catalogue.find("m"), version="2")
        catalogue.replace("m", [second])
        for _ in range(3):
            assert client.ask("m", "FP32", bytes(8), [1, 2])[1]["model_version"] == "2"
        catalogue.replace("m", [replace(second, outputs=(), most_batch=1)])
        outputs = [{"name": "y"}]
        assert client.ask("m", "FP32", bytes(8), [1, 2], outputs=outputs)[0] == 400
        assert client.ask("m", "FP32", bytes(16), [2, 2])[0] == 413


def test_classes_are_those_of_each_request(server: Server) -> None:
    outputs = [{"name": "y", "parameters": {"classification": 1, "binary_data": True}}]
    with Client(server) as client:
        for number in (0, 1, 0):
            raw = np.eye(2, dtype=np.float32)[number].tobytes()
            status, _, found = client.ask("FP32", "FP32", raw, [1, 2], outputs=outputs)
            assert (status, found[4:]) == (200, b"1.000000:%d" % number)


@pytest.mark.skipif(not IS_OFFERED, reason="no shared memory here")
def test_a_place_in_shared_memory_is_looked_for_each_time(server: Server) -> None:
    memory = server.service.shared_memory
    assert memory is not None
    outputs = [
        {"name": "y", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8}}
    ]
    name = f"coinfer-test-{uuid4().hex}"
    region = SharedMemory(name, create=True, size=8)
    try:
        with Client(server) as client:
            for number in (1, 2, 3):
                memory.register("r", f"/{name}", 0, 8)
                raw = np.full(2, number, np.float32).tobytes()
                assert client.ask("FP32", "FP32", raw, [1, 2], outputs=outputs)[0] == 200
                assert bytes(region.buf[:8]) == raw
                memory.unregister("r")
                assert client.ask("FP32", "FP32", raw, [1, 2], outputs=outputs)[0] != 200
    finally:
        region.close()
        region.unlink()


def test_no_token_is_kept_and_each_request_needs_one(known: list[bool]) -> None:
    options = ServeOptions(http=0, tenants=[Tenant("a", TOKEN)])
    with serving({"m": echo("FP32")}, options=options) as server, Client(server) as client:
        for _ in range(2):
            said = f"Authorization: Bearer {TOKEN}"
            assert client.ask("m", "FP32", bytes(8), [1, 2], said)[0] == 200
        for _ in range(2):
            assert client.ask("m", "FP32", bytes(8), [1, 2])[0] == 401
        assert not any(TOKEN.encode() in head for head in direct_of(server).known_heads._found)
    assert known == [False, False, False, True]


def test_what_is_kept_does_not_grow(server: Server) -> None:
    direct = direct_of(server)
    with Client(server) as client:
        for number in range(600):
            client.ask("FP32", "FP32", bytes(8), [1, 2], f"X-Any: {number}", x=number)
    assert len(direct.known_heads._found) <= 256
    assert len(direct.known_bodies._found) <= 256
    forms = [known.rest[-1] for known in direct.known_bodies._found.values()]
    assert all(len(form.checked.heads) == 1 for form in forms)


def test_heads_of_answers_do_not_grow() -> None:
    checked = Checked(served("m", tiny_linear().model), Asked(), {})
    for number in range(100):
        checked.learn((number,), b"head")
        assert checked.heads[number,] == b"head"
    checked.learn((), bytes(10_000))
    assert () not in checked.heads
    assert len(checked.heads) <= 8
