"""However the bytes of a connection come in pieces, and known or not: the answers are the same."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from uvicorn.server import ServerState

from coinfer.server.http.connection import Connection
from coinfer.server.http.front_end import HttpFrontEnd
from coinfer.server.http.known_heads import KnownHeads
from coinfer.server.http.timing_wheel import TimingWheel
from coinfer.server.serving import Server
from server.servers import echo, serving

SEEDS = range(12)
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving({"m": echo("FP32"), "i": echo("INT64")}) as server:
        yield server


class Wire(asyncio.Transport):
    """Keeps what is written until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sent, self.closed = b"", False

    def write(self, data: Any) -> None:
        if not self.closed:
            self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


def inference(raw: bytes, *more: str, model: str = "m", **said: Any) -> bytes:
    datatype, size = ("FP32", 4) if model == "m" else ("INT64", 8)
    tensor = {"name": "x", "datatype": datatype, "shape": [1, len(raw) // size]}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}, **said})
    lines = (
        f"POST /v2/models/{model}/infer HTTP/1.1",
        *more,
        f"Inference-Header-Content-Length: {len(head)}",
        f"Content-Length: {len(head) + len(raw)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + head.encode() + raw


def stream(chance: random.Random) -> list[bytes]:
    def one() -> bytes:
        raw = chance.choice([chance.randbytes(8), b"\r\n\r\n\r\n\r\n"])
        return chance.choice(
            [
                inference(raw),
                inference(raw),
                inference(raw, model="i"),
                inference(raw + bytes(8)),
                inference(raw, id="some"),
                inference(raw, "X-Coinfer-Deadline: 20s"),
                inference(raw, "X-Coinfer-Deadline: soon"),
                inference(raw, outputs=[{"name": "none"}]),
                inference(raw[:-1]),
                b"\r\n" + inference(raw),
                b"GET /v2/health/live HTTP/1.1\r\n\r\n",
            ]
        )

    return [one() for _ in range(chance.randint(2, 6))]


def statuses_of(sent: bytes) -> list[tuple[int, bytes]]:
    found = []
    while sent:
        head, _, rest = sent.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        headers = dict(each.lower().split(b": ", 1) for each in lines)
        length = int(headers[b"content-length"])
        found.append((int(line.split()[1]), rest[:length]))
        sent = rest[length:]
    return found


async def answers(
    server: HttpFrontEnd, pieces: Sequence[bytes], count: int, in_turn: bool
) -> list[tuple[int, bytes]]:
    assert server._direct is not None
    assert server._server is not None
    given = {"config": server._server.config, "server_state": ServerState(), "app_state": {}}
    wheel = TimingWheel(asyncio.get_running_loop())
    connection = Connection(**given, limits=server._limits, direct=server._direct, wheel=wheel)
    wire = Wire()
    connection.connection_made(wire)
    for piece in pieces:
        connection.data_received(piece)
        if in_turn:
            async with asyncio.timeout(PATIENCE_S):
                while (cycle := connection.cycle) and not (
                    cycle.more_body or cycle.response_complete
                ):
                    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        while len(found := statuses_of(wire.sent)) < count:
            await asyncio.sleep(0)
    connection.connection_lost(ConnectionResetError())
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_the_answers_are_the_same(
    server: Server, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    front_ends = server._front_ends
    assert front_ends is not None
    [http] = front_ends._front_ends
    assert isinstance(http, HttpFrontEnd)
    asked = stream(chance)
    whole = b"".join(asked)
    cuts = sorted({0, len(whole), *(chance.randrange(len(whole)) for _ in range(7))})
    pieces = [whole[start:end] for start, end in pairwise(cuts)]

    def found(parts: Sequence[bytes], in_turn: bool) -> list[tuple[int, bytes]]:
        return front_ends.call(answers, http, parts, len(asked), in_turn).result()

    with monkeypatch.context() as without:
        without.setattr(KnownHeads, "find", lambda *_: None)
        want = found(asked, True)
    singly = [whole[at : at + 1] for at in range(len(whole))]
    for parts in (asked, asked, pieces, [whole], singly):
        for in_turn in (True, False):
            assert found(parts, in_turn) == want
