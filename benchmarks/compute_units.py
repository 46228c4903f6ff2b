"""Compute units and batches together, in simulation: machines of 8 and 16 units.

    python benchmarks/compute_units.py [--quick] [--cores 8 16]

Four networks whose requests may share runs, on `lib:cores-8` and `lib:cores-16`: how many units a
run gets and how many requests it takes is decided at each start. Times are those of the machine
files for one sample; a run of b samples takes f + (1 - f) b times as long, with f stated below for
each network (from convolutions, which gain little, to dense layers, which gain most). Two loads:
an application, of which each network gets 32 requests at once and the last answer counts, and
Poisson arrivals at 60, 90 and 120 % of what the machine could serve without batches, of which the
mean response and what is served count. Contestants get the same requests: the default policy, with
runs shared and without; one network at a time on all units, with the largest batches; and an equal
share of the units for each network, with the largest batches.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from rich.console import Console

from coinfer.bound import throughput_bound
from coinfer.machine.batching import Batching
from coinfer.machine.machine import Machine
from coinfer.machine.machine_file import load_machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.sim import simulate
from coinfer.workload.scenario import Scenario
from environment import print_environment
from requirement import Requirement, print_requirements
from tables import new_console, new_table

FIXED = {"mobilenet_v2": 0.15, "resnet50": 0.05, "resnet101": 0.05, "vgg16": 0.5}
"""Share of the time of one sample that more samples in the same run do not add."""

SIZES = (1, 2, 4, 8, 16)
AT_ONCE = 32
LOADS = (0.6, 0.9, 1.2)


class Way(NamedTuple):
    """A contestant: a plan, and the policy that decides."""

    plan: Plan
    policy: str
    options: Mapping[str, object]


class Result(NamedTuple):
    """What one did: seconds until the last answer, mean response, requests answered per second."""

    last_s: float
    response_s: float
    served_per_s: float


def batched(machine: Machine) -> Machine:
    """The machine with the times of the four networks at all batch sizes."""
    entries = {}
    for model, fixed in FIXED.items():
        for processor in machine.processors:
            alone_s = machine.profile.expected_s(model, processor.name)
            for size in SIZES if alone_s is not None else ():
                seconds = (alone_s or 0.0) * (fixed + (1 - fixed) * size)
                key = ProfileKey(model, processor.name, size)
                entries[key] = Measurement(seconds=(seconds,))
    return dataclasses.replace(machine, profile=Profile(entries))


def ways(machine: Machine) -> dict[str, Way]:
    """Return the contestants by name."""
    everything = max(machine.processors, key=lambda p: p.threads)
    share = len(everything.units) // len(FIXED)
    parts = _apart([p for p in machine.processors if p.threads == share])
    own = dict(zip(FIXED, (p.name for p in parts), strict=True))
    return {
        "coinfer": Way(_plan(machine), "earliest_finish", {}),
        "coinfer, batch: off": Way(_plan(machine, most=1), "earliest_finish", {}),
        "one network at a time": Way(_plan(_only(machine, [everything])), "earliest_finish", {}),
        "equal shares of the units": Way(
            _plan(_only(machine, parts)), "fixed", {"assignment": own}
        ),
    }


def _apart(processors: list[Processor]) -> list[Processor]:
    """Return processors that share no unit, one for each network."""
    found: list[Processor] = []
    for each in processors:
        if len(found) < len(FIXED) and all(each.units.isdisjoint(p.units) for p in found):
            found.append(each)
    return found


def _only(machine: Machine, kept: list[Processor]) -> Machine:
    names = {p.name for p in kept}
    profile = machine.profile.where(lambda key: key.processor in names)
    return dataclasses.replace(machine, processors=tuple(kept), profile=profile)


def _plan(machine: Machine, most: int = SIZES[-1]) -> Plan:
    plan = Plan.of(machine, models=FIXED)
    for model in FIXED if most > 1 else ():
        plan = plan.with_batching(model, Batching(most))
    return plan


def scenario(arrivals: Mapping[str, object], duration_s: float) -> Scenario:
    """What is asked for."""
    return Scenario.model_validate(
        {
            "models": {model: {"source": "zoo:lenet"} for model in FIXED},
            "arrivals": arrivals,
            "duration": duration_s,
            "warmup": 0.0,
            "admission_limit": 10**9,
        }
    )


def run(way: Way, asked: Scenario) -> Result:
    """Simulate."""
    done = simulate(asked, way.plan, make_policy(way.policy, **way.options), keep_records=True)
    models = done.run_counts.models.values()
    requests = [each for each in done.recorder.requests() if each.finished_s is not None]
    last_s = max(each.finished_s or 0.0 for each in requests)
    means = [counts.latencies.mean_s() for counts in models]
    in_time = sum((each.finished_s or math.inf) <= asked.duration_s for each in requests)
    return Result(
        last_s, math.exp(statistics.fmean(map(math.log, means))), in_time / asked.duration_s
    )


def main() -> int:
    """Print the tables; the exit status is 1 if something is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short, to see that it works")
    parser.add_argument("--cores", type=int, nargs="*", default=[8, 16])
    arguments = parser.parse_args()
    console = new_console()
    print_environment(console)
    required: list[Requirement] = []
    with TemporaryDirectory() as folder:
        trace = Path(folder) / "at_once.csv"
        trace.write_text("0.0\n" * AT_ONCE)
        for cores in arguments.cores:
            required += _compared(cores, trace, console, quick=arguments.quick)
    return print_requirements(console, required)


def _compared(cores: int, trace: Path, console: Console, *, quick: bool) -> list[Requirement]:
    machine = batched(load_machine(f"lib:cores-{cores}"))
    requests = 100 * cores if quick else 1_000 * cores
    bound = throughput_bound(machine.profile, machine.processors, dict.fromkeys(FIXED, 1.0))
    at_once = scenario({m: {"trace": trace} for m in FIXED}, 60.0)
    loads = {
        load: scenario(
            {m: {"poisson": load * r} for m, r in bound.per_model_per_s.items()},
            requests / (load * sum(bound.per_model_per_s.values())),
        )
        for load in LOADS
    }
    found = {
        name: [run(way, at_once), *(run(way, asked) for asked in loads.values())]
        for name, way in ways(machine).items()
    }
    columns = [f"{AT_ONCE} each, ms", *(f"{load:.0%} ms" for load in LOADS), "120 % served/s"]
    table = new_table([f"{cores} units"], columns)
    for name, results in found.items():
        cells = [results[0].last_s, *(each.response_s for each in results[1:])]
        table.add_row(
            name, *(f"{1e3 * each:.3g}" for each in cells), f"{results[-1].served_per_s:.0f}"
        )
    console.print(table)
    return _required(cores, found)


def _required(cores: int, found: Mapping[str, list[Result]]) -> list[Requirement]:
    ours, others = found["coinfer"], [each for name, each in found.items() if name != "coinfer"]

    def best(at: int, figure: Callable[[Result], float]) -> float:
        return min(figure(each[at]) for each in others)

    wanted = [
        Requirement(
            what=f"{cores} units, all at once: best of the others / ours",
            value=best(0, lambda each: each.last_s) / ours[0].last_s,
            required=0.98,
        )
    ]
    for at, load in enumerate(LOADS, 1):
        value = best(at, lambda each: each.response_s) / ours[at].response_s
        what = f"{cores} units, {load:.0%}: response, best of the others / ours"
        wanted.append(Requirement(what=what, value=value, required=0.98))
    return wanted


if __name__ == "__main__":
    raise SystemExit(main())
