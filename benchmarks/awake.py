"""Cores kept awake against cores that may go idle: latency at part of the load.

    python benchmarks/awake.py [SCENARIO] [--quick] [--loads 0.25 0.5] [--rounds 9] [--duration 10s]

The scenario's networks get Poisson arrivals at shares of the bound for its mix, with
`Engine(keep_awake=True)` and without, in turn, with equal arrivals within a round. Latencies are
medians over the rounds; ratios are taken within a round, with the 95 % interval of their median.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from coinfer.backends.base import Backend
from coinfer.backends.reused_sessions import reused_sessions
from coinfer.experiments.certificate import certify
from coinfer.hardware import available_cores
from coinfer.hardware.awake import awake
from coinfer.metrics.latency import Latencies
from coinfer.metrics.paired import in_turn
from coinfer.planner.prepare import prepare
from coinfer.profiling import Profiler, default_cache
from coinfer.runtime.play import play
from coinfer.runtime.prepared import Prepared
from coinfer.units import parse_seconds
from coinfer.workload.arrivals import Poisson
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import load_scenario
from environment import OtherWork, print_environment
from rounds import ratio_of
from tables import new_console, new_table

EXAMPLE = Path(__file__).parents[1] / "examples" / "three-networks.yaml"
WAYS = ("idle", "awake")


class Seen(NamedTuple):
    """Latencies of a network in one run, in ms."""

    p50: float
    p99: float

    @classmethod
    def of(cls, latencies: Latencies) -> Seen:
        """Read them."""
        return cls(latencies.quantile_s(0.5) * 1e3, latencies.quantile_s(0.99) * 1e3)


def main() -> int:
    """Measure and print."""
    arguments = _arguments()
    console = new_console()
    print_environment(console)
    base = load_scenario(arguments.scenario)
    ready = prepare(base, Profiler(cache=default_cache()))
    bound = certify(base, ready.plan.machine).bound
    table = new_table(
        ("load", "network"), ("p50 idle", "awake", "ratio", "p99 idle", "awake", "ratio")
    )
    with OtherWork() as other, ExitStack() as stack:
        backends = stack.enter_context(reused_sessions(ready.plan.processors))
        for load in arguments.loads:
            found: dict[tuple[str, str], list[Seen]] = defaultdict(list)
            for number, way in in_turn(WAYS, arguments.rounds):
                arrivals = {m: Poisson(poisson=load * r) for m, r in bound.per_model_per_s.items()}
                wanted = base.model_copy(
                    update={
                        "arrivals": arrivals,
                        "duration_s": parse_seconds(arguments.duration),
                        "seed": number,
                    }
                )
                for model, seen in _run(wanted, ready, backends, keep_awake=way == "awake").items():
                    found[model, way].append(seen)
            for model in ready.models:
                cells = [f"{load:.0%}", model]
                for at in range(len(Seen._fields)):
                    idle, spinning = ([seen[at] for seen in found[model, way]] for way in WAYS)
                    cells += [f"{statistics.median(values):.1f} ms" for values in (idle, spinning)]
                    cells.append(str(ratio_of(spinning, idle, larger_is_better=False)))
                table.add_row(*cells)
    console.print(
        f"{arguments.rounds} rounds of {arguments.duration}; a ratio above 1: awake is faster"
    )
    console.print(table)
    console.print(other.note)
    return 0


def _run(
    wanted: Scenario, ready: Prepared, backends: dict[str, Backend], *, keep_awake: bool
) -> dict[str, Seen]:
    played = play(
        ready,
        scenario=wanted,
        backends=backends,
        spinning=awake(available_cores()) if keep_awake else None,
        keep_records=True,
    )
    return {name: Seen.of(counts.latencies) for name, counts in played.run_counts.models.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="?", type=Path, default=EXAMPLE)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--loads", nargs="+", type=float, default=[0.25, 0.5])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--duration", default="10s")
    found = parser.parse_args()
    if found.quick:
        found.loads, found.rounds, found.duration = [0.25], 1, "3s"
    return found


if __name__ == "__main__":
    raise SystemExit(main())
