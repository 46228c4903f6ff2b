"""Sixteen tenants of one network under Poisson load: fused as planned, as asked, and never.

    python benchmarks/tenants.py [--networks lenet mlp cnn squeezenet1_1 encoder] [--really]

Copies of one network with weights of their own, each with requests of its own, at 30, 60 and 90 %
of the bound without fusing, without deadlines and with deadlines of ten runs, 10 ms at least. The
plan is measured once; `never` is that plan without its fused variants, and `asked` has two groups
of eight whether they win or not. In simulation, with the measured times; with `--really` in real
runs with deadlines, in which the ways take turns, in percent of what `never` really answers with 64
requests under way. `saturate` is the largest share of the unfused bound at which 95 % of the
deadlines of each tenant are met, in simulation.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coinfer import zoo
from coinfer.experiments.certificate import certify
from coinfer.experiments.saturation import Kept, find_saturation, on_machine
from coinfer.graph.saving import save_graph
from coinfer.metrics.counts import RunCounts
from coinfer.metrics.paired import in_turn
from coinfer.planner.prepare import prepare
from coinfer.profiling import Profiler, default_cache
from coinfer.runtime.play import play
from coinfer.runtime.prepared import Prepared
from coinfer.sim import simulate
from coinfer.workload.scenario import Scenario
from environment import OtherWork, print_environment
from fusion import cnn, encoder, mlp
from tables import new_console, new_table

TENANTS, LOADS, ROUNDS = 16, (30, 60, 90), 3
DEADLINE_RUNS, LEAST_DEADLINE_S = 10.0, 10e-3
NETWORKS = ("lenet", "mlp", "cnn", "squeezenet1_1", "encoder")
REQUESTS = 20_000
"""In a simulation."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", choices=NETWORKS, nargs="+", default=list(NETWORKS))
    parser.add_argument("--really", action="store_true", help="run it instead")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="in a simulation")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each real run")
    chosen = parser.parse_args()
    console = new_console()
    print_environment(console)
    for network in chosen.networks:
        with tempfile.TemporaryDirectory() as folder, OtherWork() as other:
            save_tenants(network, Path(folder), TENANTS)
            ways = _ways(network, Path(folder))
            ready = ways["never"]
            console.print(f"{network}: {_gain(ways)}")
            unfused = certify(ready.as_run, ready.plan.machine).sustainable_factor or 0.0
            run_s = min(entry.mean_s for key, entry in ready.plan.profile if key.batch == 1)
            rate = unfused * TENANTS
            console.print(f"a run {run_s * 1e3:.3g} ms, bound without fusing {rate:,.0f}/s")
            console.print(_table(ways, unfused, run_s, chosen))
            if not chosen.really:
                console.print(_saturated(ways, unfused, run_s, chosen.requests))
            console.print(other.note)
    return 0


# tenants


def save_tenants(network: str, folder: Path, count: int) -> list[str]:
    """Write so many copies with weights of their own, NAME.onnx; return their names."""
    makers: Mapping[str, Any] = {"cnn": cnn, "mlp": mlp, "encoder": encoder}
    names = [f"t{seed}" for seed in range(count)]
    for seed, name in enumerate(names):
        maker = makers.get(network)
        graph = maker(seed) if maker else zoo.build(network, seed=seed)
        save_graph(graph, folder / f"{name}.onnx")
    return names


def _scenario(network: str, folder: Path, fuse: object, **fields: Any) -> Scenario:
    names = [f"t{at}" for at in range(TENANTS)]
    model = fields.pop("model", {})
    return Scenario.model_validate(
        {
            "name": network,
            "models": {name: {"source": str(folder / f"{name}.onnx"), **model} for name in names},
            "arrivals": {name: {"poisson": "1/s"} for name in names},
            "admission_limit": 10**6,
            "fuse": fuse,
            **fields,
        }
    )


def _ways(network: str, folder: Path) -> dict[str, Prepared]:
    """Plan once with `auto` and once with groups; take the fused variants out for `never`."""
    halves = [[f"t{at}" for at in range(start, start + 8)] for start in (0, 8)]
    found = {}
    for way, fuse in (("auto", "auto"), ("asked", halves)):
        profiler = Profiler(cache=default_cache())
        found[way] = prepare(_scenario(network, folder, fuse), profiler, surroundings=True)
    plan = found["auto"].plan
    for name in plan.fused:
        plan = plan.without_fused(name)
    return {"never": found["auto"].planned(plan), **found}


def _gain(ways: Mapping[str, Prepared]) -> str:
    choices = ways["auto"].plan.models["t0"].choices + ways["asked"].plan.models["t0"].choices
    return "\n  ".join(str(choice) for choice in choices if choice.by == "fusing")


# loads


def _at(ready: Prepared, factor: float, deadline_s: float, seconds: float) -> Scenario:
    specs = {
        name: spec.model_copy(update={"deadline": deadline_s or None})
        for name, spec in ready.scenario.models.items()
    }
    changed = {"models": specs, "duration_s": seconds, "warmup_s": seconds / 10}
    return ready.as_run.model_copy(update=changed).scaled(factor)


def _table(
    ways: Mapping[str, Prepared], unfused: float, run_s: float, chosen: argparse.Namespace
) -> Any:
    table = new_table(
        ["load", "deadline", "way"],
        ["per s", "p50 ms", "p99 ms", "in time", "fused runs", "members", "padding"],
    )
    real_per_s = _most_per_s(ways["never"], chosen.seconds) if chosen.really else 0.0
    for load in LOADS:
        factor = unfused * load / 100
        for deadline_s in (0.0, _deadline_s(run_s)):
            found: dict[str, list[RunCounts]] = {way: [] for way in ways}
            if not chosen.really:
                for way, ready in ways.items():
                    seconds = chosen.requests / (factor * TENANTS)
                    scenario = _at(ready, factor, deadline_s, seconds)
                    found[way].append(simulate(scenario, ready.plan).run_counts)
            elif deadline_s:
                really = real_per_s * load / 100 / TENANTS
                for _, way in in_turn(ways, ROUNDS):
                    scenario = _at(ways[way], really, deadline_s, chosen.seconds)
                    found[way].append(play(ways[way], scenario=scenario).run_counts)
            for way, counts in found.items():
                if counts:
                    table.add_row(*_row(load, deadline_s, way, counts))
    return table


def _most_per_s(ready: Prepared, seconds: float) -> float:
    """Return how many requests are really answered per second with 64 under way."""
    names = list(ready.scenario.models)
    scenario = Scenario.model_validate(
        {
            "models": {name: {"source": ready.scenario.models[name].source} for name in names},
            "arrivals": {name: {"closed": 64 // TENANTS} for name in names},
            "duration": seconds,
            "warmup": seconds / 4,
        }
    )
    counts = play(ready, scenario=scenario).run_counts
    return sum(each.served for each in counts.models.values()) / counts.duration_s


def _row(load: int, deadline_s: float, way: str, rounds: list[RunCounts]) -> list[str]:
    def middle(of: Any) -> float:
        return statistics.median(of(each) for each in rounds)

    def quantile(counts: RunCounts, q: float) -> float:
        return 1e3 * max(
            (each.latencies.quantile_s(q) for each in counts.models.values() if each.completed),
            default=0.0,
        )

    def hits(counts: RunCounts) -> float:
        asked = sum(each.with_deadline for each in counts.models.values())
        return sum(each.hits for each in counts.models.values()) / max(asked, 1)

    served = middle(lambda c: sum(each.served for each in c.models.values()) / c.duration_s)
    counted = [each for counts in rounds for each in counts.fused.values()]
    fused = [(size, count) for each in counted for size, count in each.items()]
    runs = sum(count for _, count in fused)
    members = sum(size * count for size, count in fused)
    return [
        f"{load} %",
        f"{deadline_s * 1e3:.3g} ms" if deadline_s else "-",
        way,
        f"{served:,.0f}",
        f"{middle(lambda c: quantile(c, 0.5)):.3g}",
        f"{middle(lambda c: quantile(c, 0.99)):.3g}",
        f"{middle(hits):.1%}" if deadline_s else "-",
        f"{runs:,}" if runs else "-",
        f"{members / runs:.1f}" if runs else "-",
        f"{1 - members / (8 * runs):.0%}" if runs and way == "asked" else "-",
    ]


def _saturated(ways: Mapping[str, Prepared], unfused: float, run_s: float, requests: int) -> str:
    lines = []
    for way, ready in ways.items():
        base = _at(ready, 1.0, _deadline_s(run_s), requests / TENANTS)
        measure = on_machine(ready.plan)
        found = find_saturation(
            base, Kept.of(base), measure, guess=0.5 * unfused, stride=1.3, precision=0.02
        )
        lines.append(f"{way} {(found.factor or 0.0) / unfused:.2f}")
    return f"saturate, of the bound without fusing: {', '.join(lines)}"


def _deadline_s(run_s: float) -> float:
    return max(DEADLINE_RUNS * run_s, LEAST_DEADLINE_S)


if __name__ == "__main__":
    raise SystemExit(main())
