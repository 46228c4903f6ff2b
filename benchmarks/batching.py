"""Batching: requests that share runs against runs apart, and against the best fixed batch.

    python benchmarks/batching.py [--network dense|mobilenet|ZOO-NAME] [--load 30] [--rounds 9]
        [--seconds 2] [--quick]

Poisson load at 30, 60, 90 and 120 % of the bound without batching; without deadlines, and with
deadlines of ten runs, where late requests are dropped. Then `full`: 64 requests are always under
way. The engines are told the same but for `batch`: `auto` or `off`; they take turns in each round,
with the same arrivals. At full load there is the best hand-made batcher, too: each core runs full
batches of one size on ONNX Runtime without a pause, with nothing to collect; the best of 2 to 16.

`dense` is three layers of 1,024 x 1,024, `mobilenet` is MobileNetV2, others are networks of the
zoo with the sizes that they are planned for, e.g. `distilbert` for an encoder; one thread per core.
Other servers that batch are in `serving.py --batch`.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

import coinfer
from coinfer.backends.onnxruntime import OnnxRuntimeBackend
from coinfer.bound import throughput_bound
from coinfer.metrics.paired import LEAST_ROUNDS, in_turn
from coinfer.model import Model, model_from_ir
from coinfer.planner.model_source import resolve_model
from coinfer.zoo.builder import NetworkBuilder
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from rounds import ratio_of
from tables import new_console, new_table

LOADS = (30, 60, 90, 120)
BATCHES = (2, 4, 8, 16)
WIDTH, UNDER_WAY, DEADLINE_RUNS = 1024, 64, 10.0
P99, OF_FIXED = 1.1, 0.95
WAIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One contestant in one round: completions per second, ms of latency, share in time."""

    per_s: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    in_time: float = 1.0


def network(name: str) -> Model:
    if name != "dense":
        name = {"mobilenet": "mobilenet_v2"}.get(name, name)
        return resolve_model(f"zoo:{name}", name="m")
    net = NetworkBuilder("dense", seed=0)
    y = net.input("x", (WIDTH,))
    for layer in range(3):
        y = net.relu(net.gemm(y, WIDTH, name=f"fc{layer}"), name=f"relu{layer}")
    net.output(y, "y")
    return model_from_ir(net.model("three dense layers"), name="m")


def played(
    engine: coinfer.Engine, feed: Mapping[str, Any], dues_s: Sequence[float], deadline_s: float
) -> Result:
    """Ask at these moments; latency counts from the moment at which a request was due."""
    latencies: list[float] = []
    lock, begin_s = threading.Lock(), time.perf_counter() + 0.01
    options: dict[str, Any] = {}
    if deadline_s:
        options = {"deadline_s": deadline_s, "on_late": "drop"}

    def note(due_s: float) -> Callable[[Future[Any]], None]:
        def done(future: Future[Any]) -> None:
            if future.exception() is None:
                with lock:
                    latencies.append(time.perf_counter() - due_s)

        return done

    futures = []
    for after_s in dues_s:
        due_s = begin_s + after_s
        while (left_s := due_s - time.perf_counter()) > 0:
            time.sleep(left_s)
        future = engine.submit("m", feed, **options)
        future.add_done_callback(note(due_s))
        futures.append(future)
    for future in futures:
        future.exception(WAIT_S)
    took_s = time.perf_counter() - begin_s
    late = sum(each > deadline_s for each in latencies) if deadline_s else 0
    p50, p99 = np.quantile(latencies, [0.5, 0.99]) * 1e3 if latencies else (0.0, 0.0)
    in_time = (len(latencies) - late) / len(futures)
    return Result(per_s=len(latencies) / took_s, p50_ms=p50, p99_ms=p99, in_time=in_time)


def saturated(engine: coinfer.Engine, feed: Mapping[str, Any], seconds: float) -> Result:
    """Keep requests under way for so long."""
    until_s, done = time.perf_counter() + seconds, [0]
    slots = threading.Semaphore(UNDER_WAY)

    def count(_future: Future[Any]) -> None:
        done[0] += 1
        slots.release()

    while time.perf_counter() < until_s:
        slots.acquire()
        engine.submit("m", feed).add_done_callback(count)
    engine.drain(WAIT_S)
    return Result(per_s=done[0] / (time.perf_counter() - until_s + seconds))


def fixed(
    model: Model, processors: Sequence[Any], batch: int, seconds: float, dims: Mapping[str, int]
) -> float:
    """Samples per second of full batches on every core at once."""
    sessions = [OnnxRuntimeBackend().load(model, processor) for processor in processors]
    feed = model.sample_inputs(batch=batch, dims=dims)
    for session in sessions:
        session.run(feed)

    def run(session: Any) -> int:
        runs, until_s = 0, time.perf_counter() + seconds
        while time.perf_counter() < until_s:
            session.run(feed)
            runs += 1
        return runs

    with ThreadPoolExecutor(len(sessions)) as pool:
        runs = sum(pool.map(run, sessions))
    for session in sessions:
        session.close()
    return runs * batch / seconds


def arrivals(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    gaps = np.random.default_rng(seed).exponential(1 / rate_per_s, int(rate_per_s * seconds * 2))
    return [at_s for at_s in accumulate(gaps) if at_s < seconds]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", default="dense")
    parser.add_argument("--load", choices=[*map(str, LOADS), "full"], action="append")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--quick", action="store_true", help="two short rounds, no claims")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.seconds = 2, 0.5
    console = new_console()
    model, loads = network(chosen.network), chosen.load or [*map(str, LOADS), "full"]
    requirements: list[Requirement] = []
    with OtherWork(), ExitStack() as stack:
        engines = {
            way: stack.enter_context(coinfer.Engine({"m": model}, batch=way))
            for way in ("auto", "off")
        }
        plan = engines["auto"].plan
        feed = model.sample_inputs(dims=dims_of(plan))
        alone = throughput_bound(plan.measured, plan.processors, {"m": 1}).throughput_per_s
        run_s = min(e.mean_s for k, e in plan.profile if k.batch == 1)
        console.print(f"{chosen.network}: {alone:.0f}/s is the bound without batching")
        console.print(*(str(c) for c in plan.models["m"].choices if c.by == "batching"))
        table = new_table(["load", "deadline", "batch"], ["per s", "p50 ms", "p99 ms", "in time"])
        for load in loads:
            for deadline_s in (0.0,) if load == "full" else (0.0, DEADLINE_RUNS * run_s):
                found: dict[str, list[Result]] = {way: [] for way in engines}
                for at, way in in_turn(list(engines), chosen.rounds):
                    if load == "full":
                        found[way].append(saturated(engines[way], feed, chosen.seconds))
                        continue
                    dues_s = arrivals(alone * int(load) / 100, chosen.seconds, at)
                    found[way].append(played(engines[way], feed, dues_s, deadline_s))
                _add(table, load, deadline_s, found)
                requirements += _required(load, deadline_s, found)
            if load == "full":
                requirements.append(_against_fixed(model, plan, found, chosen))
        console.print(table)
        print_environment(console)
    return print_requirements(console, requirements)


def dims_of(plan: Any) -> Mapping[str, int]:
    """Sizes of the open dimensions that the network was planned for."""
    sizes = plan.models["m"].sizes
    return sizes[0] if sizes else {}


def _add(table: Any, load: str, deadline_s: float, found: Mapping[str, Sequence[Result]]) -> None:
    for way, results in found.items():
        table.add_row(
            load if load == "full" else f"{load} %",
            f"{deadline_s * 1e3:.1f} ms" if deadline_s else "-",
            way,
            f"{statistics.median(r.per_s for r in results):.0f}",
            f"{statistics.median(r.p50_ms for r in results):.2f}",
            f"{statistics.median(r.p99_ms for r in results):.2f}",
            f"{statistics.mean(r.in_time for r in results):.1%}" if deadline_s else "-",
        )


def _required(
    load: str, deadline_s: float, found: Mapping[str, Sequence[Result]]
) -> Iterator[Requirement]:
    where = f"{load} %" + (" with deadlines" if deadline_s else "")
    if deadline_s:
        hits = {way: statistics.mean(r.in_time for r in rs) for way, rs in found.items()}
        yield Requirement(
            what=f"{where}: in time, auto less off",
            value=hits["auto"] - hits["off"],
            required=-0.005,
        )
    elif load != "full":
        p99 = {way: [r.p99_ms for r in rs] for way, rs in found.items()}
        ratio = ratio_of(p99["auto"], p99["off"], larger_is_better=False).inverse
        yield Requirement(
            what=f"{where}: p99, auto / off",
            value=ratio.median,
            required=P99,
            at_most=True,
            remark=ratio.bounds,
        )


def _against_fixed(
    model: Model, plan: Any, found: Mapping[str, Sequence[Result]], chosen: argparse.Namespace
) -> Requirement:
    cores = [p for p in plan.processors if p.backend == "onnxruntime" and len(p.units) == 1]
    dims = dims_of(plan)
    best = max(
        (statistics.median(fixed(model, cores, b, 0.5, dims) for _ in range(3)), b) for b in BATCHES
    )
    rounds = [fixed(model, cores, best[1], chosen.seconds / 2, dims) for _ in range(chosen.rounds)]
    ours = [result.per_s for result in found["auto"]]
    ratio = ratio_of(ours, rounds, larger_is_better=True)
    gain = ratio_of(ours, [r.per_s for r in found["off"]], larger_is_better=True)
    return Requirement(
        what=f"full load: auto / fixed batch of {best[1]}",
        value=ratio.median,
        required=OF_FIXED,
        remark=f"{ratio.bounds}; {statistics.median(rounds):.0f}/s; auto / off: {gain}",
    )


if __name__ == "__main__":
    raise SystemExit(main())
