"""How wide a run should be, in simulation: machines of 8, 16 and 64 cores.

    python benchmarks/widths.py [--quick] [--cores 8 16 64] [--planned-for 0.25 0.5 0.8 0.95]
        [--tight]

Two loads at 50, 80 and 95 % of the bound: three networks in equal mix with Poisson arrivals, and
eight networks at frame rates. The default policy on processors of every useful width against the
same policy where only one width is there, and there again with one thread or all cores only. The
machines are `lib:cores-8`, `lib:cores-16` and `lib:cores-64`, which say what they assume. Response
is the geometric mean over the networks of their mean response times; all contestants have the same
requests. The best fixed width of each column is the best of all of them there, so no single
contestant is meant. At 95 % what is completed counts, of the bound. `coinfer` has only what a plan
would load, and `preempting` express processors beside it, which Linux has by default where requests
differ in urgency: without them no width can help a short request while each core runs something
long. `--planned-for` shows instead what a plan that was made for another load costs, and `--tight`
what the mix keeps beside a stream whose deadline only a wide run meets, plainly, and where that
stream has a priority and there are express processors.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
from functools import partial
from typing import NamedTuple

from rich.console import Console

from coinfer.bound import throughput_bound
from coinfer.machine.machine import Machine
from coinfer.machine.machine_file import load_machine
from coinfer.machine.processor import Processor
from coinfer.plan import Plan
from coinfer.planner.columns import Demand, Room, few
from coinfer.planner.useful import useful
from coinfer.policies import make_policy
from coinfer.sim import simulate
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario
from environment import print_environment
from requirement import Requirement, print_requirements
from tables import new_console, new_table

LOADS = (0.5, 0.8, 0.95)
MIX = {"mobilenet_v2": 1.0, "resnet50": 1.0, "resnet101": 1.0}
FRAMES_PER_S = {
    "small_resnet": 30.0,
    "squeezenet1_1": 30.0,
    "mobilenet_v2": 30.0,
    "resnet50": 10.0,
    "densenet201": 8.0,
    "inception_v3": 6.0,
    "resnet101": 5.0,
    "vgg16": 2.0,
}
"""Of one camera each; as many cameras as make the load, and a frame's deadline is its period."""
NOT_WORSE = 0.98
"""What chance makes of equals in so many requests."""

TIGHT, TIGHT_SHARE, TIGHT_PATIENCE = "vgg16", 0.1, 0.7
"""A network with that share of the work beside the mix, whose requests have so many times what one
core takes."""

PATIENCE = 3.0
"""Requests of the mix have so many times what one core takes."""


class Result(NamedTuple):
    """What a contestant did under a load."""

    in_time: float
    response_ms: float
    served: float


def scenario(machine: Machine, kind: str, load: float, requests: int) -> Scenario:
    """What is asked for: the rates of the bound, times the load."""
    weights = MIX if kind == "mix" else FRAMES_PER_S
    bound = throughput_bound(machine.profile, machine.processors, weights)
    rates = {model: load * rate for model, rate in bound.per_model_per_s.items()}
    deadlines = {
        model: 1 / FRAMES_PER_S[model]
        if kind == "frames"
        else PATIENCE * (machine.profile.expected_s(model, "cpu0") or 0.0)
        for model in weights
    }
    process = "poisson" if kind == "mix" else "periodic"
    return Scenario.model_validate(
        {
            "models": {m: {"source": "zoo:lenet", "deadline": deadlines[m]} for m in weights},
            "arrivals": {m: {process: rates[m]} for m in weights},
            "duration": requests / sum(rates.values()),
            "warmup": 0.0,
            "admission_limit": 10**9,
        }
    )


def of_width(machine: Machine, width: int) -> Machine:
    """The machine with processors of one width only."""
    kept = tuple(p for p in machine.processors if p.threads == width)
    names = {p.name for p in kept}
    profile = machine.profile.where(lambda key: key.processor in names)
    return dataclasses.replace(machine, processors=kept, profile=profile)


def planned(machine: Machine, asked: Scenario) -> Machine:
    """The machine with what a plan would load, and no more."""
    profile = useful(machine.profile.restricted(asked.models), machine.processors)
    load = Load(asked)
    demand = Demand(
        rates=load.offered_rates_per_s() or {},
        is_absolute=True,
        deadlines={m: s.deadline_s for m, s in asked.models.items() if s.deadline_s},
        arrivals=partial(load.first_arrivals, 4_096),
    )
    columns = few(
        profile,
        machine.processors,
        demand,
        room=Room(threads=8 * len(machine.processors[-1].units)),
        session_of=lambda p: p.threads == 1 or p.name,  # as onnxruntime's are
    )
    pairs = {(model, name) for model, each in columns.items() for name in each.processors}
    return dataclasses.replace(machine, profile=profile.of_pairs(pairs))


def preempting(machine: Machine) -> Machine:
    """The machine with an express processor on each core."""
    express = [
        Processor(
            name=f"{p.name}+",
            backend=p.backend,
            units=frozenset({f"{p.name}+"}),
            overlays=p.units,
        )
        for p in machine.processors
        if p.threads == 1
    ]
    return dataclasses.replace(machine, processors=(*machine.processors, *express))


def run(machine: Machine, asked: Scenario) -> Result:
    """Simulate the default policy."""
    done = simulate(asked, Plan.of(machine, models=asked.models), make_policy("earliest_finish"))
    models = done.run_counts.models.values()
    submitted = sum(counts.submitted for counts in models)
    means = [counts.latencies.mean_s() for counts in models]
    return Result(
        in_time=sum(counts.hits for counts in models) / submitted,
        response_ms=1e3 * math.exp(statistics.fmean(map(math.log, means))),
        served=sum(counts.served for counts in models) / submitted,
    )


def contestants(machine: Machine, asked: Scenario) -> dict[str, Machine]:
    """By name, what the default policy is given; `coinfer` is what a plan would load."""
    widths = sorted({p.threads for p in machine.processors})
    ours = planned(machine, asked)
    return {
        "coinfer": ours,
        "preempting": preempting(ours),
        "all widths": machine,
        **{f"width {width}": of_width(machine, width) for width in widths},
    }


def compared(machine: Machine, kind: str, load: float, requests: int) -> dict[str, Result]:
    """Let all serve the same requests."""
    asked = scenario(machine, kind, load, requests)
    return {name: run(each, asked) for name, each in contestants(machine, asked).items()}


def required(what: str, load: float, found: dict[str, Result]) -> list[Requirement]:
    """What the issue asks for."""
    fixed = {name: each for name, each in found.items() if name.startswith("width ")}
    names = list(fixed)
    ours = found["coinfer"]
    best_in_time = max(each.in_time for each in fixed.values())
    best_ms = min(each.response_ms for each in fixed.values())
    ends_ms = min(fixed[names[0]].response_ms, fixed[names[-1]].response_ms)
    wanted = [
        Requirement(
            what=f"{what}: in time / best fixed width",
            value=ours.in_time / best_in_time,
            required=NOT_WORSE,
        ),
        Requirement(
            what=f"{what}: response, best fixed width / ours",
            value=best_ms / ours.response_ms,
            required=NOT_WORSE,
        ),
    ]
    if load == 0.5:
        wanted += [
            Requirement(
                what=f"{what}: response, better of 1 thread and all cores / {title}",
                value=ends_ms / found[name].response_ms,
                required=1.3,
            )
            for name, title in (("coinfer", "ours"), ("preempting", "ours with express processors"))
        ]
    if load == 0.8:
        in_time = found["preempting"].in_time
        remark = f"without preemption {ours.in_time:.1%}"
        wanted.append(
            Requirement(what=f"{what}: in time", value=in_time, required=0.99, remark=remark)
        )
    if load == 0.95:
        wanted.append(
            Requirement(
                what=f"{what}: served of the bound", value=load * ours.served, required=0.945
            )
        )
    return wanted


def print_stale(console: Console, cores: int, shares: list[float], requests: int) -> None:
    """Print what plans made for some shares of the bound do at each of them."""
    machine = load_machine(f"lib:cores-{cores}")
    for kind in ("mix", "frames"):
        columns = [*(f"for {share:.0%}" for share in shares), "all widths"]
        table = new_table([f"{cores} cores, {kind}, ms"], columns)
        demands = [scenario(machine, kind, share, requests) for share in shares]
        plans = [planned(machine, asked) for asked in demands]
        for share, asked in zip(shares, demands, strict=True):
            found = [run(each, asked) for each in (*plans, machine)]
            cells = [f"{each.response_ms:.3g} ({each.in_time:.1%})" for each in found]
            table.add_row(f"load {share:.0%}", *cells)
        console.print(table)


def tight(machine: Machine, load: float, requests: int, priority: int) -> Scenario:
    """What is asked for: the mix, and beside it a stream that one core cannot serve in time."""
    alone_s = {m: machine.profile.expected_s(m, "cpu0") or 0.0 for m in (*MIX, TIGHT)}
    work_s = math.fsum(weight * alone_s[model] for model, weight in MIX.items())
    weights = {**MIX, TIGHT: work_s * TIGHT_SHARE / (1 - TIGHT_SHARE) / alone_s[TIGHT]}
    bound = throughput_bound(machine.profile, machine.processors, weights)
    rates = {model: load * rate for model, rate in bound.per_model_per_s.items()}
    deadlines = {m: PATIENCE * s for m, s in alone_s.items()}
    deadlines[TIGHT] = TIGHT_PATIENCE * alone_s[TIGHT]
    return Scenario.model_validate(
        {
            "models": {
                m: {"source": "zoo:lenet", "deadline": s, "priority": priority * (m == TIGHT)}
                for m, s in deadlines.items()
            },
            "arrivals": {m: {"poisson": rate} for m, rate in rates.items()},
            "duration": requests / sum(rates.values()),
            "warmup": 0.0,
            "admission_limit": 10**9,
        }
    )


def print_tight(console: Console, cores: int, requests: int) -> None:
    """Print the shares in time of the stream, and of all requests."""
    machine = load_machine(f"lib:cores-{cores}")
    forms = {"plain": (machine, 0), "priority, express": (preempting(machine), 1)}
    columns = [f"{name}, {whose}" for name in forms for whose in (TIGHT, "all")]
    table = new_table([f"{cores} cores, in time"], columns)
    for load in (0.9, 0.95, 1.05):
        cells = []
        for form, priority in forms.values():
            asked = tight(machine, load, requests, priority)
            plan = Plan.of(form, models=asked.models)
            done = simulate(asked, plan, make_policy("earliest_finish")).run_counts.models
            all_hits, all_submitted = (
                sum(getattr(each, what) for each in done.values()) for what in ("hits", "submitted")
            )
            cells.append(f"{done[TIGHT].hits / done[TIGHT].submitted:.1%}")
            cells.append(f"{all_hits / all_submitted:.1%}")
        table.add_row(f"load {load:.0%}", *cells)
    console.print(table)


def main() -> int:
    """Print the tables; the exit status is 1 if something is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short, to see that it works")
    parser.add_argument("--cores", type=int, nargs="*", default=[8, 16, 64])
    parser.add_argument("--planned-for", type=float, nargs="+", help="shares of the bound")
    parser.add_argument("--tight", action="store_true", help="a stream that needs wide runs")
    arguments = parser.parse_args()
    console = new_console()
    print_environment(console)
    requirements = []
    for cores in arguments.cores:
        machine = load_machine(f"lib:cores-{cores}")
        requests = 100 * cores if arguments.quick else 1_000 * cores
        if arguments.planned_for:
            print_stale(console, cores, arguments.planned_for, requests)
            continue
        if arguments.tight:
            print_tight(console, cores, requests)
            continue
        for kind in ("mix", "frames"):
            columns = [f"{load:.0%} {what}" for load in LOADS for what in ("in time", "ms")]
            table = new_table([f"{cores} cores, {kind}"], columns)
            rows: dict[str, list[str]] = {}
            for load in LOADS:
                found = compared(machine, kind, load, requests)
                requirements += required(f"{cores} cores, {kind}, {load:.0%}", load, found)
                for name, each in found.items():
                    cells = (f"{each.in_time:.1%}", f"{each.response_ms:.3g}")
                    rows.setdefault(name, []).extend(cells)
            for name, cells in rows.items():
                table.add_row(name, *cells)
            console.print(table)
    return print_requirements(console, requirements) if requirements else 0


if __name__ == "__main__":
    raise SystemExit(main())
