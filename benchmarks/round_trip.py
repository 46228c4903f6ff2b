"""What the engine costs: a request through it against a bare hand-over to one thread.

    python benchmarks/round_trip.py [--quick]

Null backend with zero service time, so nothing but coinfer is measured. The peer is the least that
any engine needs: put a future into a `SimpleQueue`, have one thread resolve it, wait for it. The
two alternate in blocks in one run, so that drift of the machine hits both.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from coinfer import Engine, Processor, Profile
from coinfer.backends.null import NullBackend
from coinfer.testing.models import tiny_linear
from environment import OtherWork, print_environment
from requirement import WIDTH, Requirement, print_requirements

PER_BLOCK, IN_FLIGHT = 2_000, 64
QUANTILES = {"median": (0.5, 1.6), "p99": (0.99, 3.0)}
"""The quantile and how many times the bare hand-over it may take."""

MIN_PER_S = 15_000


def main() -> int:
    """Measure and print; the exit status is 1 if a requirement is missed."""
    quick = _arguments().quick
    console = Console(width=WIDTH)
    print_environment(console)
    with OtherWork() as other, _engine() as engine, HandOver() as bare:
        feed = tiny_linear().model.sample_inputs()

        def submit() -> Future[Any]:
            return engine.submit("m", feed)

        gc.collect()
        gc.freeze()
        ours, theirs = alternate(submit, bare.submit, blocks=4 if quick else 20)
        requests = 5_000 if quick else 30_000
        flood_ours, flood_theirs = flood(submit, requests), flood(bare.submit, requests)
    table = Table("", box=box.SIMPLE_HEAD, highlight=False)
    for header in ("coinfer", "bare hand-over", "ratio"):
        table.add_column(header, justify="right")
    requirements = []
    for name, (q, limit) in QUANTILES.items():
        a, b = quantile(ours, q), quantile(theirs, q)
        table.add_row(
            f"round trip, {name}", f"{a * 1e6:.1f} us", f"{b * 1e6:.1f} us", f"{a / b:.2f}x"
        )
        requirements.append(
            Requirement(
                what=f"round trip, {name}, coinfer / bare hand-over",
                value=a / b,
                required=limit,
                at_most=True,
            )
        )
    what = f"requests/s with {IN_FLIGHT} in flight"
    ratio = f"{flood_ours / flood_theirs:.2f}x"
    table.add_row(what, f"{flood_ours:,.0f}", f"{flood_theirs:,.0f}", ratio)
    requirements.append(
        Requirement(what=f"coinfer, {what}", value=flood_ours, required=MIN_PER_S, unit="/s")
    )
    console.print(table)
    console.print(other.note, highlight=False)
    return print_requirements(console, requirements)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of it: shows that it works")
    return parser.parse_args()


def _engine() -> Engine:
    return Engine(
        {"m": tiny_linear().model},
        processors=[Processor(name="cpu0", backend="null", units=frozenset({"core0"}))],
        profile=Profile.from_seconds({"m": {"cpu0": 1e-6}}),
        backends={"null": NullBackend()},
        pin=False,
    )


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
    one: Callable[[], Future[Any]], other: Callable[[], Future[Any]], *, blocks: int
) -> tuple[list[float], list[float]]:
    """Round trips in seconds of both, block by block; the first block of each warms up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for block in range(blocks + 1):
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


def flood(submit: Callable[[], Future[Any]], requests: int) -> float:
    """Requests per second with a fixed number in flight, median of five runs."""
    rates = []
    for _ in range(5):
        started = time.perf_counter()
        free = threading.Semaphore(IN_FLIGHT)
        for _ in range(requests):
            free.acquire()
            submit().add_done_callback(partial(_release, free))
        for _ in range(IN_FLIGHT):
            free.acquire()
        rates.append(requests / (time.perf_counter() - started))
    return statistics.median(rates)


def _release(free: threading.Semaphore, _: Future[Any]) -> None:
    free.release()


def quantile(values: list[float], q: float) -> float:
    """Order statistic."""
    return sorted(values)[int(q * (len(values) - 1))]


if __name__ == "__main__":
    raise SystemExit(main())
