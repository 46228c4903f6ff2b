"""Cost of deciding on a machine of 64 cores: decisions, the bound, the simulator.

    python benchmarks/wide_machine.py [--quick]

Two sockets of 32 cores, processors of every useful width of two backends (254), 20 models. One
decision is what follows from the end of an execution while 1,000 requests wait, as in
`decisions.py`; "frames" is an event while frames with deadlines come regularly. The simulator runs
Poisson arrivals at 80 % of the bound.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
from time import perf_counter, process_time

from coinfer.bound import throughput_bound
from coinfer.machine.core_groups import core_groups
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.machine.scaling import Scaling
from coinfer.machine.topology import Core, Topology
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.sim import simulate
from coinfer.workload.scenario import Scenario
from environment import OtherWork, print_environment
from queued_core import QueuedCore, median_and_p99
from requirement import Requirement, print_requirements
from tables import new_console, new_table

CORES = 64
MODELS = 20
QUEUED = 1_000
LIMIT_US = 200.0
LIMIT_LP_S = 0.2
LEAST_PER_S = 10_000
POLICIES = ("earliest_finish", "fcfs")


def topology() -> Topology:
    """Two sockets; each has one last-level cache and one NUMA node."""
    half = CORES // 2
    cores = tuple(Core(threads=(n,), cache=n // half, node=n // half) for n in range(CORES))
    return Topology(cores=cores, used=tuple(range(CORES)))


def processors() -> tuple[Processor, ...]:
    """Every useful width, for two backends."""
    return tuple(
        Processor(
            name=f"{backend}{group.name}",
            backend=backend,
            units=frozenset(f"core{number}" for number in group.numbers),
            threads=len(group.numbers),
            cores=group.numbers,
            spread=group.spread,
        )
        for backend in ("cpu", "ov")
        for group in core_groups(topology())
    )


def table() -> dict[str, dict[str, float]]:
    """Twenty models of 2 to 200 ms on one core, serial parts of 2 to 20 %."""
    found = {}
    for at in range(MODELS):
        scaling = Scaling(
            mean_s=0.002 * 100 ** (at / (MODELS - 1)), serial=0.02 + 0.18 * at % 7 / 6
        )
        found[f"m{at}"] = {
            p.name: scaling.seconds(p.threads, (1.2 if p.spread else 1.0))
            * (1.0 + 0.03 * (-1) ** at * (p.backend == "ov"))
            for p in processors()
        }
    return found


def decisions_us(policy: str, repeats: int) -> list[float]:
    """Microseconds of decisions with a full queue."""
    profiles = {model: Profile.from_seconds({model: row}) for model, row in table().items()}
    core = QueuedCore(processors(), make_policy(policy), profiles)
    return core.decisions_us(QUEUED, repeats)


def lp_s() -> float:
    """Seconds of the bound of an equal mix."""
    seconds, everyone = table(), processors()
    began = perf_counter()
    throughput_bound(seconds, everyone, dict.fromkeys(seconds, 1.0))
    return perf_counter() - began


def simulated_per_s(policy: str, requests: int) -> float:
    """Requests simulated per second at 80 % of the bound."""
    seconds, everyone = table(), processors()
    bound = throughput_bound(seconds, everyone, dict.fromkeys(seconds, 1.0))
    machine = Machine(processors=everyone, profile=Profile.from_seconds(seconds))
    rates = {model: 0.8 * rate for model, rate in bound.per_model_per_s.items()}
    scenario = Scenario.model_validate(
        {
            "models": {model: {"source": "zoo:lenet"} for model in rates},
            "arrivals": {model: {"poisson": rate} for model, rate in rates.items()},
            "duration": requests / sum(rates.values()),
            "warmup": 0,
            "admission_limit": 10**9,
        }
    )
    plan = Plan.of(machine)
    began = process_time()
    done = simulate(scenario, plan, make_policy(policy))
    took_s = process_time() - began
    return sum(counts.completed for counts in done.run_counts.models.values()) / took_s


def main() -> int:
    """Print the table; the exit status is 1 if a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short, to see that it works")
    parser.add_argument("--profile", choices=POLICIES, help="profile the simulator instead")
    arguments = parser.parse_args()
    repeats, requests = (50, 2_000) if arguments.quick else (1_000, 20_000)
    if arguments.profile:
        profile = cProfile.Profile()
        profile.runcall(simulated_per_s, arguments.profile, requests)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return 0
    console = new_console()
    print_environment(console)
    required = []
    rows = new_table(["policy"], ["us per decision", "simulated requests/s"])
    with OtherWork() as other:
        for policy in POLICIES:
            took = decisions_us(policy, repeats)
            speed = simulated_per_s(policy, requests)
            rows.add_row(policy, median_and_p99(took), f"{speed:,.0f}")
            what = f"{policy}: median with {QUEUED:,} queued"
            median = statistics.median(took)
            required.append(
                Requirement(what=what, value=median, required=LIMIT_US, at_most=True, unit=" us")
            )
            required.append(
                Requirement(
                    what=f"{policy}: simulator", value=speed, required=LEAST_PER_S, unit="/s"
                )
            )
        solved = min(lp_s() for _ in range(3))
    required.append(
        Requirement(what="bound", value=solved, required=LIMIT_LP_S, at_most=True, unit=" s")
    )
    console.print(rows)
    console.print(other.note)
    return print_requirements(console, required)


if __name__ == "__main__":
    raise SystemExit(main())
