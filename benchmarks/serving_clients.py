"""What a crowd of idle, slow, halting and vanishing clients does to a server and to other clients.

    python benchmarks/serving_clients.py [--quick] [--seconds 600] [--idle 10000] [--control]
        [--yielding]

One process asks steadily: four connections, each 50 times per second, with 1 KiB each way on the
null backend. Another is the crowd: idle connections, which are opened again when the server closes
them; 200 clients that send a request of 1.2 KB in pieces of 64 bytes, one per second; 200 that send
half of a body and wait; and 50 per second that ask and reset their connection at once. The steady
ones are measured before, with the crowd, and after. Memory is the server's resident set. With
`--control` they are measured once more while the crowd is at another server: what is left then is
due to the processor time of the crowd and its server. With `--yielding` the crowd has niceness 19:
the clients that it stands for would compute on machines of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console

from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from serving import bodies, ours
from tables import new_console, new_table

CONNECTIONS, RATE, MOST_P99, MOST_GROWTH = 4, 50.0, 1.2, 1.02
SLOW, HALTING, VANISHING_PER_S = 200, 200, 50.0
PIECE, PAUSE_S, OPENED_PER_S = 64, 1.0, 250.0  # so that they are closed one after the other
PATH = "/v2/models/m/infer"


def main() -> int:
    """Measure and print; the exit status is 1 if a requirement is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="200 idle ones for 5 s, no claims")
    parser.add_argument("--seconds", type=float, default=600.0, help="of the crowd")
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--control", action="store_true", help="also the crowd at another server")
    parser.add_argument("--yielding", action="store_true", help="the crowd gives way to others")
    given = parser.parse_args()
    given.niceness = 19 if given.yielding else 0
    seconds, idle = (5.0, 200) if given.quick else (given.seconds, given.idle)
    # The server and the crowd are processes of their own, and each connection is a file in both.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and idle > hard - 1000:
        raise SystemExit(f"a process may have {hard} open files here; choose --idle {hard - 1000}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = new_console()
    print_environment(console)
    calm_s = min(60.0, seconds / 4)
    with OtherWork() as other, tempfile.TemporaryDirectory() as folder:
        request = request_of(Path(folder))
        with ours(Path(folder), "coinfer", "null") as ports:
            memory = Memory(ports["http"])
            before = asyncio.run(asked(ports["http"], request, calm_s))
            file = Path(folder) / "request"
            with Crowd(ports["http"], idle, file, niceness=given.niceness) as crowd:
                memory.begin()
                during = asyncio.run(asked(ports["http"], request, seconds))
                grown = memory.growth()
                peak = memory.samples[-1]
            time.sleep(2.0)
            after = asyncio.run(asked(ports["http"], request, calm_s))
            measured = [("before", before), ("with the crowd", during), ("after", after)]
            if given.control:
                found = asked_beside(ports["http"], request, idle, seconds, given.niceness)
                measured.append(("with the crowd at another server", found))
    print_measured(console, measured)
    manner = "the crowd, yielding" if given.yielding else "the crowd"
    console.print(f"{manner}: {crowd.said}; the server at its end: {peak / 2**20:.0f} MiB")
    console.print(other.note)
    calm = statistics.mean(float(np.percentile(each, 99)) for each in (before, after))
    ratio = float(np.percentile(during, 99)) / calm
    return print_requirements(
        console,
        [
            Requirement(
                what="p99 of the steady ones, of that without the crowd",
                value=ratio,
                required=MOST_P99,
                at_most=True,
            ),
            Requirement(
                what="memory in the last third of the time, of that in the first",
                value=grown,
                required=MOST_GROWTH,
                at_most=True,
            ),
        ],
    )


def print_measured(console: Console, measured: list[tuple[str, list[float]]]) -> None:
    """Print what the steady ones waited, by what else was there."""
    table = new_table(("steady clients",), ("answers", "p50 ms", "p99 ms", "longest ms"))
    for name, found in measured:
        figures = (np.percentile(found, 50), np.percentile(found, 99), max(found))
        table.add_row(name, str(len(found)), *(f"{each * 1e3:.2f}" for each in figures))
    console.print(table)


def asked_beside(
    port: int, request: bytes, idle: int, seconds: float, niceness: int
) -> list[float]:
    """Ask while the crowd is at another server."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ours(Path(folder), "coinfer", "null") as others,
    ):
        file = Path(folder) / "request"
        file.write_bytes(request)
        with Crowd(others["http"], idle, file, niceness=niceness):
            return asyncio.run(asked(port, request, seconds))


def request_of(folder: Path) -> bytes:
    """Return the bytes of a request, and keep them in the folder."""
    array = np.random.default_rng(0).standard_normal((1, 256), dtype=np.float32)
    file, length, _ = bodies(folder, "null", "null", array)
    body = file.read_bytes()
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: {length}\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    (folder / "request").write_bytes(request)
    return request


async def answered(reader: asyncio.StreamReader) -> int:
    """Read an answer; return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    sizes = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
    await reader.readexactly(sizes[0] if sizes else 0)
    return int(lines[0].split()[1])


async def asked(port: int, request: bytes, seconds: float) -> list[float]:
    """Ask at a steady rate; return the seconds from when each request was due to its answer."""
    taken: list[float] = []

    async def one(offset_s: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(int(seconds * RATE)):
            due_s = began_s + offset_s + number / RATE
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            writer.write(request)
            if await answered(reader) != 200:
                raise SystemExit("a steady client was refused")
            taken.append(time.perf_counter() - due_s)
        writer.close()

    began_s = time.perf_counter() + 0.1
    await asyncio.gather(*(one(each / RATE / CONNECTIONS) for each in range(CONNECTIONS)))
    return taken


class Memory:
    """Notes what a server holds, each second."""

    def __init__(self, port: int) -> None:
        [pid] = {
            each.pid
            for each in psutil.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN and each.laddr.port == port
        }
        self._process = psutil.Process(pid)
        self.samples: list[int] = []

    def begin(self) -> None:
        threading.Thread(target=self._note, daemon=True).start()

    def _note(self) -> None:
        while self._process.is_running():
            self.samples.append(self._process.memory_info().rss)
            time.sleep(1.0)

    def growth(self) -> float:
        third = max(1, len(self.samples) // 3)
        return statistics.median(self.samples[-third:]) / statistics.median(self.samples[:third])


class Crowd:
    """The crowd in a process of its own; it is there while the `with` block lasts.

    Attributes:
        said: What became of them.
    """

    def __init__(self, port: int, idle: int, request: Path, *, niceness: int = 0) -> None:
        of = [str(port), str(idle), str(request), str(niceness)]
        self._command = [sys.executable, __file__, "crowd", *of]
        self.said = ""

    def __enter__(self) -> Crowd:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "there":
            raise SystemExit("the crowd did not come")
        return self

    def __exit__(self, *_: object) -> None:
        said, _ = self._process.communicate("")
        found = json.loads(said)
        self.said = ", ".join(f"{count} {name}" for name, count in sorted(found.items()))


async def crowd(port: int, idle: int, request: bytes) -> Counter[str]:
    """Be idle, slow, halting and vanishing until standard input ends."""
    loop, counts = asyncio.get_running_loop(), Counter[str]()
    half = len(request) - 500

    async def idle_one(number: int) -> None:
        await asyncio.sleep(number / OPENED_PER_S)
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64)
            counts["idle connections opened"] += 1
            await reader.read()
            writer.close()
            await asyncio.sleep(1.0)

    async def slow_one(number: int) -> None:
        await asyncio.sleep(number / SLOW * PAUSE_S)
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for at in range(0, len(request), PIECE):
                writer.write(request[at : at + PIECE])
                await asyncio.sleep(PAUSE_S)
            counts[f"slow requests answered with {await answered(reader)}"] += 1
            writer.close()

    async def halting_one() -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request[:half])
            counts[f"half requests answered with {await answered(reader)}"] += 1
            writer.close()

    async def vanishing() -> None:
        while True:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            writer.transport.abort()
            counts["vanished"] += 1
            await asyncio.sleep(1 / VANISHING_PER_S)

    async def kept(make: object, *of: int) -> None:
        while True:
            try:
                await make(*of)  # type: ignore[operator]
            except (OSError, asyncio.IncompleteReadError):
                counts["connections lost"] += 1
                await asyncio.sleep(1.0)

    tasks = [asyncio.create_task(kept(idle_one, number)) for number in range(idle)]
    tasks += [asyncio.create_task(kept(slow_one, number)) for number in range(SLOW)]
    tasks += [asyncio.create_task(kept(halting_one)) for _ in range(HALTING)]
    tasks += [asyncio.create_task(kept(vanishing))]
    while counts["idle connections opened"] < idle:
        await asyncio.sleep(0.1)
    await asyncio.sleep(5.0)  # what the server allocates once is allocated
    print("there", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    for task in tasks:
        task.cancel()
    return counts


if __name__ == "__main__":
    if sys.argv[1:2] == ["crowd"]:
        _, _, at, many, file, nice = sys.argv
        os.nice(int(nice))
        print(json.dumps(asyncio.run(crowd(int(at), int(many), Path(file).read_bytes()))))
        sys.exit(0)
    sys.exit(main())
