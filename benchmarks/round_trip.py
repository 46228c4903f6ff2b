"""What the engine costs: a request through it against a bare hand-over to one thread.

Null backend with zero service time, so nothing but coinfer is measured. The peer is the least that
any engine needs: put a future into a `SimpleQueue`, have one thread resolve it, wait for it. The
two alternate in blocks in one run, so that drift of the machine hits both.
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from queue import SimpleQueue
from typing import Any

from rich.console import Console
from rich.table import Table

from coinfer import Engine, Processor, Profile
from coinfer.backends.null import NullBackend
from coinfer.testing.models import tiny_linear
from environment import print_environment

BLOCKS, PER_BLOCK, IN_FLIGHT, FLOOD = 20, 2_000, 64, 30_000


def main() -> None:
    """Print the table."""
    console = Console()
    print_environment(console)
    model = tiny_linear().model
    cpu = Processor(name="cpu0", backend="null", units=frozenset({"core0"}))
    profile = Profile.from_seconds({"m": {"cpu0": 1e-6}})
    feed = model.sample_inputs()
    with (
        Engine(
            {"m": model},
            processors=[cpu],
            profile=profile,
            backends={"null": NullBackend()},
            pin=False,
        ) as engine,
        HandOver() as bare,
    ):
        submit: Callable[[], Future[Any]] = lambda: engine.submit("m", feed)  # noqa: E731
        gc.collect()
        gc.freeze()
        ours, theirs = alternate(submit, bare.submit)
        flood_ours, flood_theirs = flood(submit), flood(bare.submit)
    table = Table("", "coinfer", "bare hand-over", "ratio", "required")
    for name, q, limit in (("median", 0.5, 1.6), ("p99", 0.99, 3.0)):
        a, b = quantile(ours, q), quantile(theirs, q)
        table.add_row(
            f"round trip, {name}",
            f"{a * 1e6:.1f} us",
            f"{b * 1e6:.1f} us",
            f"{a / b:.2f}",
            f"<= {limit}",
        )
    table.add_row(
        f"requests/s, {IN_FLIGHT} in flight",
        f"{flood_ours:,.0f}",
        f"{flood_theirs:,.0f}",
        f"{flood_ours / flood_theirs:.2f}",
        ">= 15,000/s",
    )
    console.print(table)


class HandOver:
    """One thread that resolves futures out of a queue."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Future[int] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> HandOver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()

    def submit(self) -> Future[int]:
        """Hand a future over."""
        future: Future[int] = Future()
        self._queue.put(future)
        return future

    def _serve(self) -> None:
        while (future := self._queue.get()) is not None:
            future.set_result(0)


def alternate(
    one: Callable[[], Future[Any]], other: Callable[[], Future[Any]]
) -> tuple[list[float], list[float]]:
    """Round trips in seconds of both, block by block; the first block of each warms up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for block in range(BLOCKS + 1):
        for kept, submit in zip(seconds, (one, other), strict=True):
            trips = [round_trip(submit) for _ in range(PER_BLOCK)]
            if block:
                kept.extend(trips)
    return seconds


def round_trip(submit: Callable[[], Future[Any]]) -> float:
    """Seconds from submitting to having the result."""
    started = time.perf_counter()
    submit().result()
    return time.perf_counter() - started


def flood(submit: Callable[[], Future[Any]]) -> float:
    """Requests per second with a fixed number in flight, median of five runs."""
    rates = []
    for _ in range(5):
        started = time.perf_counter()
        pending: set[Future[Any]] = set()
        for _ in range(FLOOD):
            if len(pending) >= IN_FLIGHT:
                _, pending = wait(pending, return_when=FIRST_COMPLETED)
            pending.add(submit())
        wait(pending)
        rates.append(FLOOD / (time.perf_counter() - started))
    return statistics.median(rates)


def quantile(values: list[float], q: float) -> float:
    """Order statistic."""
    return sorted(values)[int(q * (len(values) - 1))]


if __name__ == "__main__":
    main()
