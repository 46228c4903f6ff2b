"""What the first request of a network takes, with and without `Engine.warm_up` before it.

    python benchmarks/first_request.py [SCENARIO] [--quick] [--rounds 9]

Each network of the scenario alone in an engine with one processor, one of each kind: a core, and
all cores, by every library. In turn the engine is warmed up or not, then ten requests come one
after the other. Latencies of the first one and, for comparison, of the last nine.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

from coinfer.api import Engine
from coinfer.backends.base import Tensors
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.metrics.paired import in_turn
from coinfer.model import Model
from coinfer.planner.prepare import prepare
from coinfer.profiling import Profiler, default_cache
from coinfer.runtime.clock import now
from coinfer.workload.scenario_file import load_scenario
from environment import OtherWork, print_environment
from rounds import ratio_of
from tables import new_console, new_table

EXAMPLE = Path(__file__).parents[1] / "examples" / "three-networks.yaml"
REQUESTS = 10
WAYS = ("cold", "warmed up")


def main() -> int:
    """Measure and print."""
    arguments = _arguments()
    console = new_console()
    print_environment(console)
    ready = prepare(load_scenario(arguments.scenario), Profiler(cache=default_cache()))
    kinds = {(p.backend, p.device, p.threads): p for p in reversed(ready.plan.processors)}
    table = new_table(
        ("network", "processor"), ("first", "warmed up", "ratio", "later ones", "first / later")
    )
    with OtherWork() as other:
        for name, model in ready.models.items():
            for processor in reversed(kinds.values()):
                first: dict[str, list[float]] = defaultdict(list)
                later: list[float] = []
                for _, way in in_turn(WAYS, arguments.rounds):
                    took = latencies_s(model, processor, ready.feeds[name][0], warm=way != "cold")
                    first[way].append(took[0])
                    later += took[1:]
                medians = [*map(statistics.median, (*first.values(), later))]
                ratio = ratio_of(first["warmed up"], first["cold"], larger_is_better=False)
                cells = [f"{seconds * 1e3:.1f} ms" for seconds in medians]
                of_later = f"{medians[0] / medians[2]:.1f}x"
                table.add_row(name, processor.name, *cells[:2], str(ratio), cells[2], of_later)
    console.print(f"medians of {arguments.rounds} rounds; ratio: first request, cold / warmed up")
    console.print(table)
    console.print(other.note)
    return 0


def latencies_s(model: Model, processor: Processor, inputs: Tensors, *, warm: bool) -> list[float]:
    """Return the latencies of some requests to a fresh engine, one after the other."""
    profile = Profile.from_seconds({"m": {processor.name: 1e-2}})
    with Engine({"m": model}, processors=[processor], profile=profile) as engine:
        if warm:
            engine.warm_up("m", inputs)
        took = []
        for _ in range(REQUESTS):
            began_s = now()
            engine.infer("m", inputs)
            took.append(now() - began_s)
    return took


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="?", type=Path, default=EXAMPLE)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=9)
    found = parser.parse_args()
    if found.quick:
        found.rounds = 1
    return found


if __name__ == "__main__":
    raise SystemExit(main())
