"""A hundred fine-tuned copies of one network: one comes and one goes while all are asked.

    python benchmarks/tenant_changes.py [--network lenet] [--tenants 100] [--load 50] [--seconds 4]

Copies with weights of their own, loaded from files by `Engine`, which fuses them as it measures.
Requests come at random (Poisson) to all of them, at a share of what the engine answers with 64
under way, with a deadline of 100 ms. After a while `Engine.load` adds a tenant, which is asked from
then on; one is asked no more, and `Engine.unload` removes it once it has answered. Every request
must be answered, with what onnxruntime answers for that tenant, and groups that the change does not
concern must be fused as before: the program ends with 1 if that is not so. Latencies are of the
requests that were due meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

import coinfer
from coinfer.errors import CoinferError
from environment import OtherWork, print_environment
from tables import new_console, new_table
from tenants import NETWORKS, save_tenants

DEADLINE_S = 0.1
IN_FLIGHT = 64
TOLERANCE = 1e-4
"""Relative, of fp32 sums in another order; the product's own tests compare to 1e-5 in norm."""


@dataclass(slots=True)
class Asked:
    """One request: when it was due, when it was answered, and with what."""

    tenant: str
    due_s: float
    done_s: float = 0.0
    outputs: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class Load:
    """Asks tenants at random moments until it is told to stop.

    Attributes:
        names: Those that are asked; replaced as a whole, never changed.
        made: All requests so far.
    """

    engine: coinfer.Engine
    feeds: Mapping[str, Any]
    rate: float
    names: tuple[str, ...]
    made: list[Asked] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    asking: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Ask until stopped."""
        rng, due_s = np.random.default_rng(0), time.perf_counter()
        while not self.stopped.is_set():
            due_s += rng.exponential(1 / self.rate)
            pause_s = due_s - time.perf_counter()
            if pause_s > 0:
                time.sleep(pause_s)
            with self.asking:  # so that none is asked that is being removed
                names = self.names
                asked = Asked(names[rng.integers(len(names))], due_s)
                self.made.append(asked)
                future = self.engine.submit(
                    asked.tenant, self.feeds[asked.tenant], deadline_s=DEADLINE_S
                )
            future.add_done_callback(lambda done, asked=asked: _answered(asked, done))

    def asks(self, names: tuple[str, ...]) -> None:
        """Ask others from now on."""
        with self.asking:
            self.names = names


def _answered(asked: Asked, done: Future[Any]) -> None:
    asked.done_s = time.perf_counter()
    asked.error = done.exception()
    if asked.error is None:
        asked.outputs = next(iter(done.result().values()))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="lenet")
    parser.add_argument("--tenants", type=int, default=100)
    parser.add_argument("--load", type=float, default=50.0, help="percent of what is answered")
    parser.add_argument("--seconds", type=float, default=4.0, help="before, and after")
    parser.add_argument("--measure", type=float, default=40.0, help="seconds, before the start")
    chosen = parser.parse_args()
    console = new_console()
    print_environment(console)
    with tempfile.TemporaryDirectory() as name, OtherWork() as other:
        faults = _run(chosen, Path(name), console)
    console.print(other.note)
    for fault in faults:
        console.print(f"NOT AS IT MUST BE: {fault}")
    return 1 if faults else 0


def _run(chosen: argparse.Namespace, folder: Path, console: Any) -> list[str]:
    names = save_tenants(chosen.network, folder, chosen.tenants + 1)
    paths = {name: str(folder / f"{name}.onnx") for name in names}
    feeds = {
        name: coinfer.load_model(paths[name]).sample_inputs(seed=at)
        for at, name in enumerate(names)
    }
    expected = {name: _by_onnxruntime(paths[name], feeds[name]) for name in names}
    *present, newcomer = names
    began = time.perf_counter()
    with coinfer.Engine({n: paths[n] for n in present}, measure_s=chosen.measure) as engine:
        loaded_s = time.perf_counter() - began
        groups = {name: fused.models for name, fused in engine.plan.fused.items()}
        sizes = sorted((len(members) for members in groups.values()), reverse=True)
        console.print(
            f"{len(present)} tenants of {chosen.network} loaded in {loaded_s:.1f} s, measuring "
            f"included; groups: {', '.join(map(str, sizes)) or 'none'}"
        )
        most = _most_per_s(engine, {name: feeds[name] for name in present})
        load = Load(engine, feeds, most * chosen.load / 100, tuple(present))
        console.print(f"{most:,.0f}/s with {IN_FLIGHT} under way; asked for {load.rate:,.0f}/s")
        moments = _with_changes(engine, load, paths[newcomer], newcomer, chosen.seconds)
        kept = engine.plan.fused
        outages = [f"a processor was set aside: {each}" for each in engine.outages]
    console.print(_table(load.made, moments))
    gone = present[0]
    wrong = [n for n, members in groups.items() if gone not in members and n not in kept]
    unfused = [f"{n} is not fused any more" for n in wrong]
    return [*_faults(load.made, expected, newcomer), *outages, *unfused]


def _with_changes(
    engine: coinfer.Engine, load: Load, path: str, newcomer: str, seconds: float
) -> dict[str, tuple[float, float]]:
    """Let one come and one go under load; return from when until when what was done."""
    marks = [time.perf_counter()]

    def mark() -> None:
        marks.append(time.perf_counter())

    asking = threading.Thread(target=load.run)
    asking.start()
    try:
        time.sleep(seconds)
        mark()
        engine.load(newcomer, path)
        mark()
        load.asks((*load.names, newcomer))
        time.sleep(seconds)
        mark()
        gone, *others = load.names
        load.asks(tuple(others))
        engine.unload(gone, drain=True)
        mark()
        time.sleep(seconds)
        mark()
    finally:
        load.stopped.set()
        asking.join()
        engine.drain()
    stages = ("before", "while one is added", "with one more", "while one is removed", "after")
    return dict(zip(stages, itertools.pairwise(marks), strict=True))


def _most_per_s(engine: coinfer.Engine, feeds: Mapping[str, Any], seconds: float = 2.0) -> float:
    """Return how many requests are answered per second with some under way, in turn."""
    waiting: deque[Future[Any]] = deque()
    began, answered, names, at = time.perf_counter(), 0, list(feeds), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        name = names[at % len(names)]
        waiting.append(engine.submit(name, feeds[name]))
        at += 1
        if len(waiting) == IN_FLIGHT:
            waiting.popleft().result()
            answered += 1
    for each in waiting:
        each.result()
    return answered / elapsed


def _by_onnxruntime(path: str, feed: Mapping[str, Any]) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, feed)[
        0
    ]


def _faults(made: list[Asked], expected: Mapping[str, Any], newcomer: str) -> list[str]:
    """Say what was lost, failed, or answered wrongly."""
    found = []
    lost = sum(not each.done_s for each in made)
    failed = [each for each in made if each.error is not None]
    if lost:
        found.append(f"{lost} requests were never answered")
    for each in failed[:3]:
        kind = "" if isinstance(each.error, CoinferError) else f"{type(each.error).__name__}: "
        found.append(f"a request of {each.tenant} failed: {kind}{each.error}")
    answered = [each for each in made if each.outputs is not None]
    wrong = [
        each
        for each in answered
        if np.linalg.norm(each.outputs - expected[each.tenant])
        > TOLERANCE * np.linalg.norm(expected[each.tenant])
    ]
    if wrong:
        found.append(f"{len(wrong)} requests got another answer than by onnxruntime")
    if not any(each.tenant == newcomer for each in answered):
        found.append("the one that was added was never answered")
    return found


def _table(made: list[Asked], stages: Mapping[str, tuple[float, float]]) -> Any:
    table = new_table(
        ["stage"],
        ["seconds", "requests", "lost", "failed", "p50 ms", "p99 ms", "largest ms", "in time"],
    )
    for stage, (from_s, to_s) in stages.items():
        own = [each for each in made if from_s <= each.due_s < to_s]
        took_s = sorted(each.done_s - each.due_s for each in own if each.outputs is not None)
        figures = ["-"] * 4
        if took_s:
            quantiles = [np.quantile(took_s, q) * 1e3 for q in (0.5, 0.99, 1.0)]
            in_time = sum(seconds <= DEADLINE_S for seconds in took_s) / len(own)
            figures = [*(f"{each:.3g}" for each in quantiles), f"{in_time:.1%}"]
        lost = sum(not each.done_s for each in own)
        failed = sum(each.error is not None for each in own)
        table.add_row(
            stage, f"{to_s - from_s:.3g}", f"{len(own):,}", str(lost), str(failed), *figures
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
