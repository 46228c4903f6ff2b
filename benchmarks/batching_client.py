"""A client that asks a server as a file says; prints the latencies as JSON. For `batching.py`.

    python benchmarks/batching_client.py FILE

The file has the port, the requests as hexadecimal bytes, and either `asks`, seconds and numbers of
requests, which are asked at these moments whatever is answered, or `turn` and `seconds`: numbers
that are asked in turn, so many at a time. Printed is for each ask the seconds since it was due, or
null if the server refused it; or how many were answered, by number of the request, and the seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from serving_client import HttpConnection

PATIENCE_S = 60.0


class Caller(HttpConnection):
    """Sends one request at a time and keeps its connection for the next."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: asyncio.Future[bool] | None = None

    async def call(self, request: bytes) -> bool:
        """Return whether it was answered."""
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.waiting

    def answered(self, is_ok: bool, head: bytes) -> None:  # noqa: ARG002 - as of the base class
        """Wake who waits."""
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(is_ok)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - as asyncio's
        """Whoever waits gets no answer."""
        self.answered(False, b"")


class Callers:
    """Connections to one port: as many as requests are under way at once."""

    def __init__(self, port: int) -> None:
        self.port, self.free = port, list[Caller]()

    async def call(self, request: bytes) -> bool:
        """Send a request over a free connection, or over a new one."""
        caller = self.free.pop() if self.free else await self.fresh()
        is_ok = await caller.call(request)
        if not caller.transport.is_closing():
            self.free.append(caller)
        return is_ok

    async def fresh(self) -> Caller:
        """Connect."""
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Caller, "127.0.0.1", self.port))[1]


async def played(given: dict[str, Any], requests: list[bytes]) -> dict[str, Any]:
    """Ask at these moments."""
    callers, loop = Callers(given["port"]), asyncio.get_running_loop()
    callers.free = [await callers.fresh() for _ in range(64)]
    for request in requests * 2:
        await callers.call(request)
    latencies_s: list[float | None] = [None] * len(given["asks"])
    begin_s = time.perf_counter() + 0.05

    async def ask(at: int, number: int, due_s: float) -> None:
        if await callers.call(requests[number]):
            latencies_s[at] = time.perf_counter() - due_s

    under_way = []
    for at, (after_s, number) in enumerate(given["asks"]):
        left_s = begin_s + after_s - time.perf_counter()
        if left_s > 0:
            await asyncio.sleep(left_s)
        under_way.append(loop.create_task(ask(at, number, begin_s + after_s)))
    await asyncio.wait(under_way, timeout=PATIENCE_S)
    return {"latencies_s": latencies_s, "took_s": time.perf_counter() - begin_s}


async def saturated(given: dict[str, Any], requests: list[bytes]) -> dict[str, Any]:
    """Keep requests under way."""
    callers, counts, turn = Callers(given["port"]), Counter[int](), itertools.cycle(given["turn"])
    for request in requests:
        await callers.call(request)
    begin_s = time.perf_counter()

    async def ask() -> None:
        while time.perf_counter() < begin_s + given["seconds"]:
            number = next(turn)
            is_ok = await callers.call(requests[number])
            counts[number] += is_ok  # not in one line: others count meanwhile

    await asyncio.gather(*(ask() for _ in range(given["at_once"])))
    return {"counts": dict(counts), "took_s": time.perf_counter() - begin_s}


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text())
    requests = [bytes.fromhex(each) for each in given["requests"]]
    made = played(given, requests) if "asks" in given else saturated(given, requests)
    print(json.dumps(asyncio.run(made)))


if __name__ == "__main__":
    main()
