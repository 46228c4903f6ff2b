"""A client that asks a server for the same inference again and again; one JSON line of figures.

    python benchmarks/serving_client.py http PORT PATH BODY-FILE HEADERS-JSON CONCURRENCY SECONDS
    python benchmarks/serving_client.py grpc PORT METHOD BODY-FILE {} CONCURRENCY SECONDS

Closed loop: each connection asks again as soon as it has its answer. Requests are bytes that
were made before, and answers are not parsed, so that the client costs the same for all servers.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

WARM_UP_S = 0.5


class HttpConnection(asyncio.Protocol):
    """Sends requests over HTTP/1.1 one by one, and looks at nothing but status and length."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.left = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def answered(self, is_ok: bool, head: bytes) -> None:
        """Take note of an answer."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        if self.left < 0:
            self.buffer += data
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self.head = bytes(self.buffer[:end]).lower()
            at = self.head.find(b"\r\ncontent-length:")
            if at < 0:
                self.transport.close()
                self.answered(False, b"no content-length: " + self.head[:200])
                return
            length = int(self.head[at + 17 :].split(b"\r\n")[0])
            self.left = length - (len(self.buffer) - end - 4)
            self.text = bytes(self.buffer[:300])
            self.buffer.clear()
        else:
            self.left -= len(data)
        if self.left == 0:
            self.left = -1
            self.answered(self.head.startswith(b"http/1.1 200"), self.text)


class Connection(HttpConnection):
    """Asks the same again as soon as it has its answer."""

    def __init__(self, request: bytes, seconds: list[float], errors: list[bytes]) -> None:
        super().__init__()
        self.request, self.seconds, self.errors = request, seconds, errors
        self.ended = asyncio.get_running_loop().create_future()
        self.until_s = 0.0

    def begin(self, until_s: float) -> None:
        self.until_s = until_s
        self.ask()

    def ask(self) -> None:
        self.began_s = time.perf_counter()
        self.transport.write(self.request)

    def answered(self, is_ok: bool, head: bytes) -> None:
        if not is_ok:
            self.errors.append(head)
            self.transport.close()
            return
        now = time.perf_counter()
        self.seconds.append(now - self.began_s)
        if now < self.until_s:
            self.ask()
        elif not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.errors.append(f"closed: {error}".encode())
            self.ended.set_result(None)


async def over_http(
    port: int, path: str, body: bytes, headers: dict[str, str], concurrency: int, seconds: float
) -> dict[str, float | str]:
    given = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{given}Content-Length: {len(body)}\r\n\r\n"
    request, taken, errors = head.encode() + body, list[float](), list[bytes]()
    loop = asyncio.get_running_loop()
    connections = [
        (
            await loop.create_connection(
                lambda: Connection(request, taken, errors), "127.0.0.1", port
            )
        )[1]
        for _ in range(concurrency)
    ]

    async def phase(length_s: float) -> float:
        taken.clear()
        began_s = time.perf_counter()
        for each in connections:
            each.ended = loop.create_future()
            each.begin(began_s + length_s)
        await asyncio.gather(*(each.ended for each in connections))
        return time.perf_counter() - began_s

    await phase(WARM_UP_S)
    length_s = await phase(seconds)
    for each in connections:
        each.transport.close()
    return figures(taken, length_s, [error.decode(errors="replace") for error in errors])


async def over_grpc(
    port: int, method: str, body: bytes, concurrency: int, seconds: float
) -> dict[str, float | str]:
    import grpc.aio

    taken, errors = list[float](), list[str]()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(method)

        async def ask(until_s: float) -> None:
            while time.perf_counter() < until_s:
                began_s = time.perf_counter()
                try:
                    await call(body)
                except grpc.aio.AioRpcError as error:
                    errors.append(str(error.details()))
                    return
                taken.append(time.perf_counter() - began_s)

        async def phase(length_s: float) -> float:
            taken.clear()
            began_s = time.perf_counter()
            await asyncio.gather(*(ask(began_s + length_s) for _ in range(concurrency)))
            return time.perf_counter() - began_s

        await phase(WARM_UP_S)
        length_s = await phase(seconds)
    return figures(taken, length_s, errors)


def figures(taken: list[float], length_s: float, errors: list[str]) -> dict[str, float | str]:
    if errors or not taken:
        return {"error": errors[0] if errors else "no answers"}
    ordered = sorted(taken)
    return {
        "per_s": len(ordered) / length_s,
        "p50_ms": ordered[len(ordered) // 2] * 1e3,
        "p99_ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1e3,
    }


def main() -> None:
    kind, port, path, body_file, headers, concurrency, seconds = sys.argv[1:]
    body, many, length_s = Path(body_file).read_bytes(), int(concurrency), float(seconds)
    if kind == "grpc":
        found = asyncio.run(over_grpc(int(port), path, body, many, length_s))
    else:
        made = over_http(int(port), path, body, json.loads(headers), many, length_s)
        found = asyncio.run(made)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
