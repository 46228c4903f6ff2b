"""Speed of the simulator: requests per second, against the same queue in SimPy.

    python benchmarks/simulator.py [--quick]

Four processors of unlike speed at 80 % of the bound, three models, Poisson arrivals. Each model is
slower by the same factor on a slower processor, so that any policy that lets none rest can serve
the load: a queue that only grows would make requests dearer the longer it is. The peer is the same
queue under fcfs, written for SimPy in the usual way: a process per request that asks a `Resource`,
latencies kept per model and busy seconds per processor. It knows no deadlines, priorities, limits
or failures, and no other policy. All alternate, so that drift of the machine hits all; the best
round of each counts, as other programs only ever make one slower.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
from collections.abc import Callable, Generator, Iterator
from time import process_time
from typing import Any, TypeAlias

import numpy as np
import simpy
from rich.console import Console

from coinfer.bound import throughput_bound
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.metrics.paired import LEAST_ROUNDS, in_turn
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.sim import simulate
from coinfer.workload.scenario import Scenario
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from rounds import ratio_of
from tables import new_console, new_table

LOAD = 0.8
SERVERS = 4
SIZES = (10_000, 100_000, 1_000_000)
REQUIRED_PER_S = {"fcfs": 30_000, "earliest_finish": 10_000, "sufferage": 10_000}
FLAT = 1.25
"""Cost per request at the largest size, at most so many times that at the smallest."""

Process: TypeAlias = Generator[simpy.Event, Any, None]

_TABLE_MS = {"a": (5, 6, 7, 8), "b": (10, 12, 14, 16), "c": (20, 24, 28, 32)}


def queue() -> tuple[Machine, dict[str, float]]:
    """Four processors of unlike speed and three models in equal mix, at 80 % of the bound."""
    names = [f"p{i}" for i in range(SERVERS)]
    table = {
        model: {name: ms / 1e3 for name, ms in zip(names, row, strict=True)}
        for model, row in _TABLE_MS.items()
    }
    processors = _processors(table["a"])
    bound = throughput_bound(table, processors, dict.fromkeys(table, 1.0))
    machine = Machine(
        processors=processors,
        profile=Profile.from_seconds(table),
        spreads={(model, name): 0.2 for model in table for name in names},
    )
    return machine, {model: LOAD * rate for model, rate in bound.per_model_per_s.items()}


def _processors(row: dict[str, float]) -> tuple[Processor, ...]:
    return tuple(Processor(name=name, backend="imagined", units=frozenset({name})) for name in row)


def scenario(rates: dict[str, float], requests: int) -> Scenario:
    """As many requests as asked for, on average."""
    return Scenario.model_validate(
        {
            "models": {model: {"source": "zoo:lenet"} for model in rates},
            "arrivals": {model: {"poisson": rate} for model, rate in rates.items()},
            "duration": requests / sum(rates.values()),
            "warmup": 0,
            "admission_limit": 10**9,
        }
    )


def ours_s(machine: Machine, rates: dict[str, float], policy: str, requests: int) -> float:
    """Processor seconds per request, records off."""
    wanted = scenario(rates, requests)
    gc.collect()
    began = process_time()
    done = simulate(wanted, Plan.of(machine), make_policy(policy))
    took_s = process_time() - began
    return took_s / sum(counts.completed for counts in done.run_counts.models.values())


def simpy_s(machine: Machine, rates: dict[str, float], requests: int) -> float:
    """Processor seconds per request of the same queue in SimPy."""
    began = process_time()
    latencies, _busy = SimPyQueue(machine, rates).run(requests)
    return (process_time() - began) / sum(len(each) for each in latencies.values())


class SimPyQueue:
    """First come, first served; the head gets the free processor that is fastest for its model."""

    def __init__(self, machine: Machine, rates: dict[str, float]) -> None:
        self.machine = machine
        self.rates = rates
        self.environment = simpy.Environment()
        self.free = [processor.name for processor in machine.processors]
        self.turns = simpy.Resource(self.environment, capacity=len(self.free))
        self.latencies: dict[str, list[float]] = {model: [] for model in rates}
        self.busy = dict.fromkeys(self.free, 0.0)
        self.seconds = {
            model: {name: machine.profile.expected_s(model, name) or 0.0 for name in self.free}
            for model in rates
        }
        self.times = {
            (model, name): times(mean_s, machine.spreads[model, name])
            for model, row in self.seconds.items()
            for name, mean_s in row.items()
        }

    def run(self, requests: int) -> tuple[dict[str, list[float]], dict[str, float]]:
        """Return latencies by model and busy seconds by processor."""
        end_s = requests / sum(self.rates.values())
        for model, rate in self.rates.items():
            self.environment.process(self.arrivals(model, times(1 / rate, 1.0), end_s))
        self.environment.run()
        return self.latencies, self.busy

    def arrivals(self, model: str, gaps: Iterator[float], end_s: float) -> Process:
        """Let requests of one model arrive."""
        environment = self.environment
        while True:
            yield environment.timeout(next(gaps))
            if environment.now >= end_s:
                return
            environment.process(self.request(model))

    def request(self, model: str) -> Process:
        """One request from due to answered."""
        environment = self.environment
        due = environment.now
        with self.turns.request() as turn:
            yield turn
            name = min(self.free, key=self.seconds[model].__getitem__)
            self.free.remove(name)
            took_s = next(self.times[model, name])
            yield environment.timeout(took_s)
            self.free.append(name)
        self.busy[name] += took_s
        self.latencies[model].append(environment.now - due)


def times(mean_s: float, cv: float) -> Iterator[float]:
    """Gamma-distributed seconds, endless, drawn in blocks."""
    rng, shape = np.random.default_rng(0), cv**-2
    while True:
        yield from rng.gamma(shape, mean_s / shape, 1024).tolist()


def alternate(measure: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Figures of alternating rounds, by name."""
    took: dict[str, list[float]] = {name: [] for name in measure}
    for _, name in in_turn(measure, rounds):
        took[name].append(measure[name]())
    return took


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Measure and print; the exit status is 1 if a requirement is missed."""
    quick = _arguments().quick
    console = new_console()
    print_environment(console)
    machine, rates = queue()
    requests = 20_000 if quick else 50_000
    with OtherWork() as others:
        took = alternate(
            {
                "fcfs": lambda: ours_s(machine, rates, "fcfs", requests),
                "fcfs in SimPy": lambda: simpy_s(machine, rates, requests),
                "earliest_finish": lambda: ours_s(machine, rates, "earliest_finish", requests),
                "sufferage": lambda: ours_s(machine, rates, "sufferage", requests),
            },
            rounds=2 if quick else LEAST_ROUNDS,
        )
    speeds = {name: min(seconds) for name, seconds in took.items()}
    ratio = ratio_of(took["fcfs"], took["fcfs in SimPy"], larger_is_better=False)
    table = new_table(["80 % load"], ("us per request", "requests/s"))
    for name, seconds in speeds.items():
        table.add_row(name, f"{seconds * 1e6:.1f}", f"{1 / seconds:,.0f}")
    console.print(table)
    console.print(others.note)
    sizes = SIZES[:1] if quick else SIZES
    costs = growth(console, (machine, rates), sizes)
    requirements = [
        Requirement(
            what=f"{name}, four processors", value=1 / speeds[name], required=limit, unit="/s"
        )
        for name, limit in REQUIRED_PER_S.items()
    ]
    requirements += [
        Requirement(
            what="fcfs as fast as in SimPy",
            value=ratio.median,
            required=1.0,
            remark=ratio.bounds,
        ),
        Requirement(
            what=f"cost per request, {SIZES[-1]:,} against {SIZES[0]:,}",
            value=None if quick else costs[-1] / costs[0],
            required=FLAT,
            at_most=True,
        ),
    ]
    return print_requirements(console, requirements)


def growth(
    console: Console, asked: tuple[Machine, dict[str, float]], sizes: tuple[int, ...]
) -> list[float]:
    """Print cost and memory by number of requests; return the seconds per request."""
    table = new_table(["requests"], ("us per request", "peak memory MiB"))
    costs = []
    for size in sizes:
        rounds = max(1, sizes[0] * 5 // size)
        costs.append(statistics.median(ours_s(*asked, "fcfs", size) for _ in range(rounds)))
        table.add_row(f"{size:,}", f"{costs[-1] * 1e6:.1f}", f"{peak_mib():.0f}")
    console.print(table)
    return costs


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short, to see that it works")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
