"""What the engine costs: a request through it against a bare hand-over to one thread.

    python benchmarks/round_trip.py [--quick]

Null backend with zero service time, so nothing but coinfer is measured. The peer is the least that
any engine needs: put a future into a `SimpleQueue`, have one thread resolve it, wait for it. The
two alternate in blocks in one run, so that drift of the machine hits both. A ratio is taken within
a pair of blocks.

Where the two threads run decides more than what they do: waking a thread on another core takes two
to three times as long as on one's own. The engine pins its workers, so the peer's thread is pinned
to the same core, and the caller is placed for both alike: on another core, then on the same one.
The third placement, nobody pinned, is printed and not judged: the system's scheduler then puts one
of the two on one core and the other on two, by chance.
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
from typing import Any, NamedTuple

from rich.table import Table

from coinfer import Engine, Processor, Profile
from coinfer.backends.null import NullBackend
from coinfer.hardware.cores import available_cores
from coinfer.metrics.paired import LEAST_ROUNDS, in_turn
from coinfer.testing.models import tiny_linear
from coinfer.threads.pinning import can_pin, pin_current_thread
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from rounds import ratio_of
from tables import new_console, new_table

PER_BLOCK, IN_FLIGHT = 2_000, 64
QUANTILES = {"median": (0.5, 1.6), "p99": (0.99, 3.0)}
"""The quantile and how many times the bare hand-over it may take."""

MIN_PER_S = 15_000


class Placement(NamedTuple):
    """Where the caller and the serving thread run; no cores: wherever the system puts them."""

    name: str
    caller: tuple[int, ...]
    server: tuple[int, ...]
    judged: bool = True


def main() -> int:
    """Measure and print; the exit status is 1 if a requirement is missed."""
    quick = _arguments().quick
    console = new_console()
    print_environment(console)
    table = new_table(("caller and worker", ""), ("coinfer", "bare hand-over", "ratio"))
    requirements: list[Requirement] = []
    with OtherWork() as other:
        for placement in _placements():
            requirements += _measure(placement, table, quick=quick)
    console.print(table)
    console.print(other.note)
    return print_requirements(console, requirements)


def _placements() -> list[Placement]:
    cores = available_cores()
    if not can_pin(cores):
        return [Placement("not pinned", (), ())]
    first, *others = cores
    found = [Placement("on one core", (first,), (first,))]
    if others:
        found.insert(0, Placement("on two cores", (others[0],), (first,)))
    return [*found, Placement("not pinned", tuple(cores), (), judged=False)]


def _measure(placement: Placement, table: Table, *, quick: bool) -> list[Requirement]:
    """Add the rows of one placement; return what it must reach."""
    pin_current_thread(placement.caller)
    with _engine(placement.server) as engine, HandOver(placement.server) as bare:
        feed = tiny_linear().model.sample_inputs()

        def submit() -> Future[Any]:
            return engine.submit("m", feed)

        gc.collect()
        gc.freeze()
        trips = alternate(submit, bare.submit, blocks=LEAST_ROUNDS if quick else 20)
        requests = 2_000 if quick else 15_000
        rates = alternate_floods(submit, bare.submit, requests)
    requirements = []
    for name, (q, limit) in QUANTILES.items():
        ours, theirs = ([quantile(block, q) for block in blocks] for blocks in trips)
        ratio = ratio_of(ours, theirs, larger_is_better=False).inverse
        us = (f"{statistics.median(seconds) * 1e6:.1f} us" for seconds in (ours, theirs))
        table.add_row(placement.name, f"round trip, {name}", *us, str(ratio))
        what = f"round trip, {name}, coinfer / bare hand-over, {placement.name}"
        requirements.append(
            Requirement(
                what=what, value=ratio.median, required=limit, at_most=True, remark=ratio.bounds
            )
        )
    what = f"requests/s with {IN_FLIGHT} in flight"
    medians = [statistics.median(each) for each in rates]
    ratio = ratio_of(*rates, larger_is_better=True)
    table.add_row(placement.name, what, *(f"{rate:,.0f}" for rate in medians), str(ratio))
    what = f"coinfer, {what}, {placement.name}"
    requirements.append(Requirement(what=what, value=medians[0], required=MIN_PER_S, unit="/s"))
    return requirements if placement.judged else []


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of it: shows that it works")
    return parser.parse_args()


def _engine(cores: tuple[int, ...]) -> Engine:
    return Engine(
        {"m": tiny_linear().model},
        processors=[
            Processor(name="cpu0", backend="null", units=frozenset({"core0"}), cores=cores)
        ],
        profile=Profile.from_seconds({"m": {"cpu0": 1e-6}}),
        backends={"null": NullBackend()},
    )


class HandOver:
    """One thread that resolves futures out of a queue."""

    def __init__(self, cores: tuple[int, ...]) -> None:
        self._cores = cores
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
        pin_current_thread(self._cores)
        while (future := self._queue.get()) is not None:
            future.set_result(0)


def alternate(
    one: Callable[[], Future[Any]], other: Callable[[], Future[Any]], *, blocks: int
) -> tuple[list[list[float]], list[list[float]]]:
    """Round trips in seconds of both, by block; the first block of each warms up."""
    seconds: tuple[list[list[float]], list[list[float]]] = ([], [])
    submits = {"one": one, "other": other}
    for block, name in in_turn(submits, blocks + 1):
        trips = [round_trip(submits[name]) for _ in range(PER_BLOCK)]
        if block:
            seconds[name == "other"].append(trips)
    return seconds


def alternate_floods(
    one: Callable[[], Future[Any]], other: Callable[[], Future[Any]], requests: int
) -> tuple[list[float], list[float]]:
    """Requests per second of both with a fixed number in flight, by round."""
    rates: tuple[list[float], list[float]] = ([], [])
    submits = {"one": one, "other": other}
    for _, name in in_turn(submits, LEAST_ROUNDS):
        rates[name == "other"].append(flood(submits[name], requests))
    return rates


def round_trip(submit: Callable[[], Future[Any]]) -> float:
    """Seconds from submitting to having the result."""
    started = time.perf_counter()
    submit().result()
    return time.perf_counter() - started


def flood(submit: Callable[[], Future[Any]], requests: int) -> float:
    """Requests per second with a fixed number in flight."""
    started = time.perf_counter()
    free = threading.Semaphore(IN_FLIGHT)
    for _ in range(requests):
        free.acquire()
        submit().add_done_callback(partial(_release, free))
    for _ in range(IN_FLIGHT):
        free.acquire()
    return requests / (time.perf_counter() - started)


def _release(free: threading.Semaphore, _: Future[Any]) -> None:
    free.release()


def quantile(values: list[float], q: float) -> float:
    """Order statistic."""
    return sorted(values)[int(q * (len(values) - 1))]


if __name__ == "__main__":
    raise SystemExit(main())
