"""A pool with a core for each of its threads against one that the system places: service times.

    python benchmarks/pinning.py [SCENARIO] [--quick] [--rounds 12] [--runs 16]

Each network of the scenario on ONNX Runtime's processor over all cores: its threads pinned, each to
a core of its own, and its threads left to the system; in turn, back to back and after rests of
20 ms. Times are those of all rounds together, ratios are medians over the rounds of the ratio of
the means, with their 95 % intervals.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from coinfer.backends.base import Session, Tensors, caller_cores
from coinfer.backends.registry import find_backends
from coinfer.hardware.catalogue import default_processors
from coinfer.machine.processor import Processor
from coinfer.metrics.paired import in_turn
from coinfer.model import Model
from coinfer.planner.prepare import prepare
from coinfer.profiling import Profiler, default_cache
from coinfer.profiling.measure import on_cores
from coinfer.workload.scenario_file import load_scenario
from environment import OtherWork, print_environment
from rounds import ratio_of
from tables import new_console, new_table

EXAMPLE = Path(__file__).parents[1] / "examples" / "three-networks.yaml"
WAYS = ("left", "pinned")
RESTS_S = {"back to back": 0.0, "after 20 ms": 0.02}


def main() -> int:
    """Measure and print."""
    arguments = _arguments()
    console = new_console()
    print_environment(console)
    wide = next(
        (p for p in default_processors() if p.backend == "onnxruntime" and len(p.cores) > 1), None
    )
    if wide is None:
        console.print("not measured: a pool needs two cores to which threads can be pinned")
        return 0
    ready = prepare(load_scenario(arguments.scenario), Profiler(cache=default_cache()))
    table = new_table(
        ("network", ""),
        ("mean left", "pinned", "ratio", "p50 left", "pinned", "p99 left", "pinned"),
    )
    with OtherWork() as other:
        for name, model in ready.models.items():
            found = _measured(model, wide, ready.feeds[name][0], arguments)
            for rests in RESTS_S:
                rounds = [found[rests, way] for way in WAYS]
                means = [[statistics.fmean(took) for took in way] for way in rounds]
                left, pinned = means
                ratio = ratio_of(pinned, left, larger_is_better=False)
                cells = [*map(_ms, map(statistics.fmean, means)), str(ratio)]
                for share in (0.5, 0.99):
                    cells += [_ms(float(np.quantile(way, share))) for way in rounds]
                table.add_row(name, rests, *cells)
    console.print(
        f"{wide.threads} threads; {arguments.rounds} rounds of {arguments.runs} runs; "
        "a ratio above 1: pinned is faster"
    )
    console.print(table)
    console.print(other.note)
    return 0


def _measured(
    model: Model, wide: Processor, feeds: Tensors, arguments: argparse.Namespace
) -> dict[tuple[str, str], list[list[float]]]:
    """Return the seconds of the runs, by rests and way, a list per round."""
    backend = find_backends([wide], {})[wide.backend]
    processors = {"left": replace(wide, cores=()), "pinned": wide}
    found: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    with ExitStack() as stack:
        sessions = {way: backend.load(model, processors[way]) for way in WAYS}
        for session in sessions.values():
            stack.callback(session.close)
        for _, way in in_turn(WAYS, arguments.rounds):
            cores = caller_cores(backend, processors[way]) or wide.cores
            for rests, rest_s in RESTS_S.items():
                times = partial(_times, sessions[way], feeds, arguments.runs, rest_s)
                found[rests, way].append(on_cores(cores, times))
    return found


def _times(
    session: Session, feeds: Tensors, runs: int, rest_s: float, _stop: threading.Event
) -> list[float]:
    """Seconds of each of so many runs, in the calling thread; the first one warms up."""
    took = []
    for _ in range(runs + 1):
        time.sleep(rest_s)
        began_s = time.perf_counter()
        session.run(feeds)
        took.append(time.perf_counter() - began_s)
    return took[1:]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="?", type=Path, default=EXAMPLE)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--runs", type=int, default=16)
    found = parser.parse_args()
    if found.quick:
        found.rounds, found.runs = 1, 3
    return found


if __name__ == "__main__":
    raise SystemExit(main())
