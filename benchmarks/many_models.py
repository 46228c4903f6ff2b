"""A hundred small models loaded at once: threads, memory, time to load, requests per second.

    python benchmarks/many_models.py [--quick]

ResNet-20 from the zoo (0.27 million parameters) with a hundred different seeds, written to files.
Requests go round: each model is asked in turn. coinfer gets them as a user gives them,
`Engine({name: path, ...})`, on onnxruntime's processors only, as the peers, and with profiles of
one of them: the others have the same architecture and so the same times, and profiling is not what
is measured here. The peers are a hundred
onnxruntime sessions: with defaults called in sequence, with defaults called by a thread per core,
and, as an expert would, with one thread each, called by a pinned worker per core. Each in a process
of its own. Threads are the most seen while loaded, those that call included; memory is what the
process grew by from before loading until after serving; loading is from files to ready, of the
session by hand and of coinfer the median of some processes in turn, with what the libraries do once
per process done before.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
from rich.table import Table

from coinfer import Profile, load_model, zoo
from coinfer.backends.pools import POOLS
from coinfer.hardware import available_cores, default_processors
from coinfer.machine.processor import Processor
from coinfer.machine.profile import ProfileKey
from coinfer.metrics.paired import LEAST_ROUNDS, in_turn
from coinfer.planner.passes.threads import within_pools
from coinfer.planner.useful import useful
from coinfer.profiling import profile_models
from coinfer.threads.pinning import pin_current_thread
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from rounds import Ratio, output_of, ratio_of
from tables import new_console, new_table

NETWORK = "small_resnet"
MODELS = 100
SPARE_THREADS = 10
IN_FLIGHT_PER_CORE = 2
LOAD_ROUNDS = LEAST_ROUNDS
QUICK_LOAD_ROUNDS = 1
LOAD_ONLY_S = 0.01
MOST_TIMES_BY_HAND = 1.5

Infer = Callable[[str], object]
"""Runs the model of that name and returns when the outputs are there."""

BY_HAND = "onnxruntime: 1 thread, pinned workers, by hand"
OURS = "coinfer"
CONTESTANTS = {
    "onnxruntime: defaults, in sequence": "defaults",
    "onnxruntime: defaults, thread per core": "defaults-threads",
    BY_HAND: "workers",
    OURS: "coinfer",
}


def main() -> int:
    """Measure and print; the exit status is 1 if a requirement is missed."""
    arguments = _arguments()
    if arguments.only is not None:
        print(json.dumps(_contest(arguments.only, arguments.folder, arguments.seconds)))
        return 0
    console, log = new_console(), new_console(stderr=True)
    print_environment(console)
    with TemporaryDirectory(prefix="many-models-") as folder:
        log.print(f"writing {MODELS} models")
        for seed in range(MODELS):
            zoo.export([NETWORK], Path(folder) / f"{seed:03}", seed=seed)
        results = {}
        with OtherWork() as other:
            for title, name in CONTESTANTS.items():
                log.print(title)
                results[title] = _in_process(name, folder, arguments.seconds)
            log.print("loading once more")
            rounds = QUICK_LOAD_ROUNDS if arguments.quick else LOAD_ROUNDS
            loading = _measure_loading(results, folder, rounds)
    console.print(
        f"{MODELS} x {NETWORK}, asked in turn for {arguments.seconds:g} s; requests/s are those of "
        "one round"
    )
    console.print(_table(results))
    console.print(other.note)
    limit = len(available_cores()) + SPARE_THREADS
    ours, by_hand = results[OURS], results[BY_HAND]
    return print_requirements(
        console,
        [
            Requirement(
                what=f"coinfer, threads with {MODELS} models loaded",
                value=ours["threads"],
                required=limit,
                at_most=True,
                unit="",
                remark=f"cores + {SPARE_THREADS}",
            ),
            Requirement(
                what="coinfer, time to load of that by hand",
                value=loading.median,
                required=MOST_TIMES_BY_HAND,
                at_most=True,
                remark=loading.bounds,
            ),
            Requirement(
                what="coinfer, memory of that by hand",
                value=ours["memory_bytes"] / by_hand["memory_bytes"],
                required=MOST_TIMES_BY_HAND,
                at_most=True,
            ),
        ],
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 s each: shows that it works")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--only", choices=CONTESTANTS.values(), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.seconds = arguments.seconds or (2.0 if arguments.quick else 8.0)
    return arguments


def _in_process(name: str, folder: str, seconds: float) -> dict[str, float]:
    options = ["--only", name, "--folder", folder, "--seconds", str(seconds)]
    return dict(json.loads(output_of([sys.executable, __file__, *options])))


def _measure_loading(results: dict[str, dict[str, float]], folder: str, rounds: int) -> Ratio:
    """Load by hand and with coinfer in turn; put the medians, with the first times, in place.

    Returns how much longer coinfer takes.
    """
    times = {title: [results[title]["load_s"]] for title in (BY_HAND, OURS)}
    for _, title in in_turn(times, rounds - 1):
        times[title].append(_in_process(CONTESTANTS[title], folder, LOAD_ONLY_S)["load_s"])
    for title, found in times.items():
        results[title]["load_s"] = statistics.median(found)
    return ratio_of(times[OURS], times[BY_HAND], larger_is_better=False).inverse


# in the process of one contestant


def _contest(name: str, folder: Path, seconds: float) -> dict[str, float]:
    files = {path.parent.name: path for path in sorted(folder.glob(f"*/{NETWORK}.onnx"))}
    feed = zoo.sample_inputs(NETWORK)
    serve = {
        "defaults": lambda: _serve_onnxruntime(files, feed, seconds, workers=1, threads=0),
        "defaults-threads": lambda: _serve_onnxruntime(
            files, feed, seconds, workers=len(available_cores()), threads=0
        ),
        "workers": lambda: _serve_onnxruntime(
            files, feed, seconds, workers=len(available_cores()), threads=1
        ),
        "coinfer": lambda: _serve_coinfer(files, feed, seconds),
    }[name]
    return serve()


class Profiler:
    """Threads and memory of this process since it was made."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before_bytes = self._process.memory_info().rss
        self._before_s = time.perf_counter()
        self.load_s = 0.0
        self.threads = 0

    def loaded(self) -> None:
        """Note that all models are ready."""
        self.load_s = time.perf_counter() - self._before_s
        self.look()

    def look(self) -> None:
        """Note the threads that there are now."""
        self.threads = max(self.threads, self._process.num_threads())

    def result(self, served: int, seconds: float) -> dict[str, float]:
        """Note the memory and put everything together."""
        return {
            "threads": self.threads,
            "memory_bytes": self._process.memory_info().rss - self._before_bytes,
            "load_s": self.load_s,
            "per_s": served / seconds,
        }


def _serve_onnxruntime(
    files: Mapping[str, Path],
    feed: Mapping[str, np.ndarray],
    seconds: float,
    *,
    workers: int,
    threads: int,
) -> dict[str, float]:
    import onnxruntime as ort

    def created(path: Path) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    created(next(iter(files.values())))  # as profiling does for coinfer
    profiler = Profiler()
    sessions = [created(path) for path in files.values()]
    profiler.loaded()
    for session in sessions:
        session.run(None, feed)
    turns, served = itertools.count(), itertools.count()
    end_s = time.perf_counter() + seconds

    def work(core: int | None) -> None:
        pin_current_thread(() if core is None else (core,))
        while time.perf_counter() < end_s:
            sessions[next(turns) % len(sessions)].run(None, feed)
            next(served)

    cores = available_cores() if threads == 1 else [None] * workers
    pool = [threading.Thread(target=work, args=(core,)) for core in cores]
    for thread in pool:
        thread.start()
    profiler.look()
    for thread in pool:
        thread.join()
    return profiler.result(next(served), seconds)


def _serve_coinfer(
    files: Mapping[str, Path], feed: Mapping[str, np.ndarray], seconds: float
) -> dict[str, float]:
    from coinfer import Engine

    processors = default_processors(["onnxruntime"])
    profile = _profile(files, processors)
    profiler = Profiler()
    with Engine(files, processors=processors, profile=profile) as engine:
        profiler.loaded()
        for name in files:
            engine.infer(name, feed)
        names = itertools.cycle(files)
        served = itertools.count()
        lock = threading.Lock()
        end_s = time.perf_counter() + seconds

        def submit() -> None:
            with lock:
                name = next(names)
            engine.submit(name, feed).add_done_callback(answered)

        def answered(future: Future[Any]) -> None:
            future.result()
            if time.perf_counter() < end_s:
                next(served)
                submit()

        for _ in range(IN_FLIGHT_PER_CORE * len(available_cores())):
            submit()
        profiler.look()
        engine.drain()
        return profiler.result(next(served), seconds)


def _profile(files: Mapping[str, Path], processors: Sequence[Processor]) -> Profile:
    """Measure one model and give all the same times, within the limit that an engine keeps to."""
    first = next(iter(files))
    measured = useful(
        profile_models({first: load_model(files[first], name=first)}, processors), processors
    )
    everyone = Profile(
        {
            ProfileKey(name, key.processor, key.batch, key.span): entry
            for name in files
            for key, entry in measured
        }
    )
    room = POOLS.room(max(processor.threads for processor in processors))
    return within_pools(everyone, processors, threads=room)


def _table(results: Mapping[str, Mapping[str, float]]) -> Table:
    figures = ("threads", "memory MiB", "load s", "requests/s", "coinfer is")
    table = new_table([""], figures)
    for title, result in results.items():
        ours = title == OURS
        table.add_row(
            title,
            f"{result['threads']:.0f}",
            f"{result['memory_bytes'] / 2**20:,.0f}",
            f"{result['load_s']:.2f}",
            f"{result['per_s']:,.0f}",
            "" if ours else f"{results[OURS]['per_s'] / result['per_s']:.2f}x",
            style="bold" if ours else None,
        )
    return table


if __name__ == "__main__":
    raise SystemExit(main())
