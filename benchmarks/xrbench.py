"""XRBench's seven scenarios: the largest rates at which each policy keeps QoE >= 0.95.

    python benchmarks/xrbench.py [--quick] [--here] [--scenarios NAME...] [--policies NAME...]

The figure is the factor on all rates of the scenario (`coinfer saturate`). Three ways that need no
scheduler stand beside the policies: the best fixed mapping (of all assignments of networks to
processors, the one whose busiest processor is least busy), round robin, and the best processor
alone, under edf where it is simulated. Without `--here`, trials are simulated on
`lib:synthetic-edge`; with it, they are measured and simulated on this machine, which takes minutes
per scenario.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

from rich.table import Table

from coinfer.planner.saturation import Kept, Measure, find_saturation, on_machine, on_this_machine
from coinfer.planner.stage import Limits, find_limits, measured_machine
from coinfer.policies import policy_names
from coinfer.processor import Processor
from coinfer.profiles import Profile
from coinfer.profiling import default_cache
from coinfer.scenarios import library
from coinfer.sim import Machine
from coinfer.units import parse_seconds
from coinfer.workload.load import Load
from coinfer.workload.scenario import PolicySpec, Scenario
from coinfer.workload.scenario_file import load_scenario
from environment import OtherWork, print_environment
from tables import new_console, new_table

SCENARIOS = (
    "social-interaction-a",
    "social-interaction-b",
    "outdoor-activity-a",
    "outdoor-activity-b",
    "ar-assistant",
    "ar-gaming",
    "vr-gaming",
)
MACHINE = Path("lib:synthetic-edge")
FIXED, ALONE = "best fixed mapping", "best processor alone"
_MOST_MAPPINGS = 200_000


def main() -> int:
    """Measure and print."""
    arguments = _arguments()
    console = new_console()
    print_environment(console)
    names = arguments.scenarios[:1] if arguments.quick else arguments.scenarios
    for how in ("simulated", "measured") if arguments.here else ("simulated",):
        with OtherWork() as other:
            found = {name: _factors(name, how, arguments) for name in names}
        where = "this machine" if arguments.here else str(MACHINE)
        console.print(f"largest factor on the rates with QoE >= 0.95, {how} on {where}")
        console.print(_table(found))
        console.print(_winners(found))
        console.print(other.note)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one scenario, rough")
    parser.add_argument("--here", action="store_true", help="on this machine, measured as well")
    parser.add_argument("--duration", default="10s", help="of a trial at the scenario's own rates")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    names = [name for name in policy_names() if name != "fixed"]
    parser.add_argument("--policies", nargs="+", choices=names, default=names)
    return parser.parse_args()


def _factors(name: str, how: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the factor by policy, the ways without a scheduler first."""
    scenario = load_scenario(library.scenario_path(f"lib:xrbench-{name}"))
    scenario = scenario.with_options(duration_s=parse_seconds(arguments.duration))
    if arguments.here:
        scenario = scenario.model_copy(update={"machine": None})
        limits = find_limits(scenario, cache=default_cache())
        assert limits.prepared is not None  # no file describes the machine
        machine = measured_machine(limits.prepared, cache=default_cache())
    else:
        limits = find_limits(scenario, machine_file=MACHINE)
        machine = limits.machine
    if how == "measured":
        assert limits.prepared is not None
        measure = on_this_machine(limits.prepared)
    else:
        measure = on_machine(machine)
    precision = 0.1 if arguments.quick or how == "measured" else 0.01

    def factor(policy: PolicySpec, by: Measure = measure) -> float:
        wanted = limits.scenario.model_copy(update={"policy": policy})
        guess = limits.certificate.sustainable_factor or 1.0
        found = find_saturation(wanted, Kept.of(wanted), by, guess=guess, precision=precision)
        return found.factor or 0.0

    found = {}
    mapping = _best_mapping(limits, machine)
    if mapping is not None:
        found[FIXED] = factor(PolicySpec(name="fixed", options={"assignment": mapping}))
    if how == "measured":
        single = _best_single(limits, machine)
        if single is not None:
            found[ALONE] = factor(PolicySpec(name="fixed", options={"assignment": single}))
    else:
        alone = [on_machine(only) for only in _single(machine, tuple(scenario.models))]
        edf = PolicySpec(name="edf")
        found[ALONE] = max((factor(edf, by) for by in alone), default=0.0)
    return found | {name: factor(PolicySpec(name=name)) for name in arguments.policies}


def _best_mapping(limits: Limits, machine: Machine) -> dict[str, str] | None:
    """Find the assignment whose busiest compute unit is least busy; None if there are too many."""
    rates = Load(limits.scenario).offered_rates_per_s() or {}
    able = {
        model: {
            p.name: seconds
            for p in machine.processors
            if (seconds := _seconds(machine, limits.scenario, model, p)) is not None
        }
        for model in limits.scenario.models
    }
    if not rates or math.prod(map(len, able.values())) > _MOST_MAPPINGS:
        return None
    units = {p.name: p.units for p in machine.processors}
    best: tuple[float, tuple[str, ...]] = (math.inf, ())
    for choice in product(*able.values()):
        load: Counter[str] = Counter()
        for model, name in zip(able, choice, strict=True):
            for unit in units[name]:
                load[unit] += rates[model] * able[model][name]  # type: ignore[assignment]
        best = min(best, (max(load.values()), choice))
    return dict(zip(able, best[1], strict=True))


def _best_single(limits: Limits, machine: Machine) -> dict[str, str] | None:
    """Find the processor that is least busy with everything; None if none runs all models."""
    rates = Load(limits.scenario).offered_rates_per_s() or {}
    best: tuple[float, str] = (math.inf, "")
    for processor in machine.processors:
        seconds = [_seconds(machine, limits.scenario, model, processor) for model in rates]
        known = [each for each in seconds if each is not None]
        if len(known) == len(rates):
            load = sum(rate * each for rate, each in zip(rates.values(), known, strict=True))
            best = min(best, (load, processor.name))
    return dict.fromkeys(limits.scenario.models, best[1]) if best[1] else None


def _seconds(
    machine: Machine, scenario: Scenario, model: str, processor: Processor
) -> float | None:
    batch = scenario.models[model].batch
    return machine.profile.expected_s(model, processor.name, batch=batch)


def _single(machine: Machine, models: Sequence[str]) -> Iterable[Machine]:
    """Machines of one processor each, those that run everything."""
    for processor in machine.processors:
        entries = {k: v for k, v in machine.profile if k.processor == processor.name}
        if set(models) <= {key.model for key in entries}:
            yield dataclasses.replace(machine, processors=(processor,), profile=Profile(entries))


def _table(found: Mapping[str, Mapping[str, float]]) -> Table:
    figures = [*(name.replace("-", " ") for name in found), "mean"]
    table = new_table(["policy"], figures, wraps=True)
    rows = list(dict.fromkeys(policy for row in found.values() for policy in row))
    best = {name: max(row.values()) for name, row in found.items()}
    for policy in rows:
        values = {name: row.get(policy) for name, row in found.items()}
        known = [value for value in values.values() if value]
        mean = math.exp(sum(map(math.log, known)) / len(known)) if known else 0.0
        cells = [
            "-" if v is None else f"[bold]{v:.2f}[/]" if v == best[name] else f"{v:.2f}"
            for name, v in values.items()
        ]
        table.add_row(policy, *cells, f"{mean:.2f}")
    return table


def _winners(found: Mapping[str, Mapping[str, float]]) -> str:
    lines = []
    for name, row in found.items():
        winner = max(row, key=row.__getitem__)
        against = [
            f"{row[winner] / row[other]:.2f}x {other}"
            for other in (FIXED, "round_robin", ALONE)
            if row.get(other)
        ]
        lines.append(f"{name}: {winner}, {', '.join(against)}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
