"""Requests that are under way together hold no more memory than there is room for."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress

import pytest

from coinfer.errors import RejectedError
from coinfer.server.limits import ServerLimits
from coinfer.server.room import Room
from coinfer.server.serving import ServeOptions, Server
from server.servers import echo, serving

_SIZE = 600 << 10


def _whole() -> tuple[bytes, bytes]:
    """Return the head and the body of a request of so many bytes."""
    tensor = {
        "name": "x",
        "datatype": "UINT8",
        "shape": [1, _SIZE],
        "parameters": {"binary_data_size": _SIZE},
    }
    said = json.dumps({"inputs": [tensor], "outputs": []}).encode()
    body = said + bytes(_SIZE)
    head = (
        "POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Inference-Header-Content-Length: {len(said)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode(), body


def _status(server: Server) -> tuple[int, bytes]:
    found = b""
    with (
        socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=20) as client,
        suppress(ConnectionError),  # refused while it sends: the answer may be lost
    ):
        head, body = _whole()
        client.sendall(head + body)
        while part := client.recv(1 << 16):
            found += part
    return int(found.split()[1]) if found else 0, found


def test_what_finds_no_room_is_refused_until_there_is_some_again() -> None:
    limits = ServerLimits(bodies_bytes=1 << 20, body_s=30.0)
    options = ServeOptions(http=0, limits=limits)
    with serving({"echo": echo("UINT8")}, options=options) as server:
        assert _status(server)[0] == 200
        with socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=20) as slow:
            head, body = _whole()
            slow.sendall(head + body[:-1])
            until_s = time.monotonic() + 10
            while (answer := _status(server))[0] != 429 and time.monotonic() < until_s:
                time.sleep(0.02)  # not all of the slow one has come
            assert answer[0] == 429
            assert b"leaves no room" in answer[1]
            assert b"retry-after" in answer[1].lower()
        while (status := _status(server)[0]) != 200 and time.monotonic() < until_s:
            time.sleep(0.02)
        assert status == 200


def test_what_is_held_is_given_back_whatever_happens() -> None:
    room = Room(100)
    with room.holding() as held:
        held.take(70)
        with pytest.raises(RejectedError, match="leaves no room"):
            held.take(31)
        held.take(30)
    assert room.held_bytes == 0
