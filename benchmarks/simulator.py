"""Speed of the simulator: requests per second, against the same queue in SimPy.

    python benchmarks/simulator.py [--quick]

Four processors at 80 % load, Poisson arrivals. The peer is the usual way to write a queue with four
servers in SimPy: a process per request that asks a `Resource`; it gets the same times between
arrivals and times of the same distribution, and adds up latencies. It knows one model, equal
servers and no deadlines, and keeps no counts per processor: it is the least that could be asked.
The two alternate, so that drift of the machine hits both; the best round of each counts, as other
programs only ever make one slower.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
from collections.abc import Callable
from time import process_time

import numpy as np
import simpy
from rich import box
from rich.console import Console
from rich.table import Table

from coinfer.policies import make_policy
from coinfer.processor import Processor
from coinfer.profiles import Profile
from coinfer.sim import Machine, simulate
from coinfer.workload.scenario import Scenario
from environment import print_environment
from requirement import WIDTH, Requirement, print_requirements

LOAD = 0.8
SERVERS = 4
MEAN_S = 0.01
SIZES = (10_000, 100_000, 1_000_000)
REQUIRED_PER_S = {"fcfs": 30_000, "earliest_finish": 10_000}
FLAT = 1.25
"""Cost per request at the largest size, at most so many times that at the smallest."""

_TABLE_MS = {"a": (5, 6, 7, 8), "b": (10, 9, 12, 13), "c": (30, 20, 15, 14)}


def equal_machine() -> tuple[Machine, dict[str, float]]:
    """Four equal servers and one model: the queue M/M/4."""
    row = {f"p{i}": MEAN_S for i in range(SERVERS)}
    machine = Machine(
        processors=_processors(row),
        profile=Profile.from_seconds({"m": row}),
        spreads={("m", name): 1.0 for name in row},
    )
    return machine, {"m": LOAD * SERVERS / MEAN_S}


def unlike_machine() -> tuple[Machine, dict[str, float]]:
    """Four unlike processors and three models in equal mix, at 80 % of the bound."""
    from coinfer.planner.bound import throughput_bound

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
    done = simulate(wanted, machine, make_policy(policy))
    took_s = process_time() - began
    return took_s / sum(tally.completed for tally in done.tallies.models.values())


def simpy_s(requests: int) -> float:
    """Processor seconds per request of the M/M/4 queue in SimPy."""
    rng = np.random.default_rng(0)
    gaps = rng.exponential(MEAN_S / LOAD / SERVERS, requests).tolist()
    times = rng.exponential(MEAN_S, requests).tolist()
    environment = simpy.Environment()
    servers = simpy.Resource(environment, capacity=SERVERS)
    total = 0.0

    def request(seconds: float):
        nonlocal total
        due = environment.now
        with servers.request() as turn:
            yield turn
            yield environment.timeout(seconds)
        total += environment.now - due

    def arrivals():
        for gap, seconds in zip(gaps, times, strict=True):
            yield environment.timeout(gap)
            environment.process(request(seconds))

    gc.collect()
    began = process_time()
    environment.process(arrivals())
    environment.run()
    took_s = process_time() - began
    assert total > 0
    return took_s / requests


def best(measure: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The least of several alternating rounds, by name."""
    took: dict[str, list[float]] = {name: [] for name in measure}
    for _ in range(rounds):
        for name, call in measure.items():
            took[name].append(call())
    return {name: min(values) for name, values in took.items()}


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Measure and print; the exit status is 1 if a requirement is missed."""
    quick = _arguments().quick
    console = Console(width=WIDTH)
    print_environment(console)
    equal, unlike = equal_machine(), unlike_machine()
    requests = 5_000 if quick else 50_000
    speeds = best(
        {
            "fcfs, equal servers": lambda: ours_s(*equal, "fcfs", requests),
            "SimPy, equal servers": lambda: simpy_s(requests),
            "fcfs": lambda: ours_s(*unlike, "fcfs", requests),
            "earliest_finish": lambda: ours_s(*unlike, "earliest_finish", requests),
        },
        rounds=2 if quick else 5,
    )
    table = Table("queue at 80 % load", box=box.SIMPLE_HEAD, highlight=False)
    for header in ("us per request", "requests/s"):
        table.add_column(header, justify="right")
    for name, seconds in speeds.items():
        table.add_row(name, f"{seconds * 1e6:.1f}", f"{1 / seconds:,.0f}")
    console.print(table)
    sizes = SIZES[:1] if quick else SIZES
    costs = growth(console, unlike, sizes)
    requirements = [
        Requirement(
            what=f"{name}, four processors", value=1 / speeds[name], required=limit, unit="/s"
        )
        for name, limit in REQUIRED_PER_S.items()
    ]
    requirements += [
        Requirement(
            what="as fast as SimPy on its queue",
            value=speeds["SimPy, equal servers"] / speeds["fcfs, equal servers"],
            required=1.0,
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
    console: Console, queue: tuple[Machine, dict[str, float]], sizes: tuple[int, ...]
) -> list[float]:
    """Print cost and memory by number of requests; return the seconds per request."""
    table = Table("requests", box=box.SIMPLE_HEAD, highlight=False)
    for header in ("us per request", "peak memory MiB"):
        table.add_column(header, justify="right")
    costs = []
    for size in sizes:
        rounds = max(1, sizes[0] * 5 // size)
        costs.append(statistics.median(ours_s(*queue, "fcfs", size) for _ in range(rounds)))
        table.add_row(f"{size:,}", f"{costs[-1] * 1e6:.1f}", f"{peak_mib():.0f}")
    console.print(table)
    return costs


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short, to see that it works")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
