"""XRBench's seven scenarios: the largest rates at which each policy keeps QoE >= 0.95.

    python benchmarks/xrbench.py [--quick] [--here] [--in-time] [--scenarios NAME...]
                                 [--policies NAME...]

The figure is the factor on all rates of the scenario (`coinfer saturate`). As XRBench has it, a
frame is good if it was completed; with `--in-time`, if that was before its deadline. Three ways
that need no scheduler stand beside the policies: the best fixed mapping (of all assignments of
networks to processors, the one whose busiest processor is least busy), round robin, and the best
processor alone under edf. Without `--here`, trials are simulated on `lib:synthetic-edge`, each with
the frames of `--duration` at the scenario's own rates. With it, they are simulated on this machine
as it was profiled, and then run on it, both for `--trial` seconds: the factor that was simulated is
where the search begins. A model with fewer than 20 frames in a trial may lose none. What was
measured while the machine itself changed (`steadiness`) is measured again; cores are kept awake.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from coinfer.experiments.certificate import certify
from coinfer.experiments.fixed_mapping import best_mapping
from coinfer.experiments.saturation import (
    Kept,
    Measure,
    Quality,
    find_saturation,
    on_machine,
    on_this_machine,
)
from coinfer.hardware.awake import awake
from coinfer.hardware.cores import available_cores
from coinfer.machine.profile import Profile
from coinfer.metrics.counts import RunCounts
from coinfer.plan import Plan
from coinfer.planner.prepare import prepare
from coinfer.policies import policy_names
from coinfer.profiling import Profiler, default_cache
from coinfer.runtime.prepared import Prepared
from coinfer.scenarios import library
from coinfer.units import parse_seconds
from coinfer.workload.scenario import PolicySpec, Scenario
from coinfer.workload.scenario_file import load_scenario
from environment import OtherWork, print_environment
from steadiness import Canary, Watch
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
ALONE_POLICY = PolicySpec(name="edf")
_PRECISION = 0.15
"""Of factors on this machine. Trials are short, and the machine varies by as much."""

_STEADY = 0.25
"""Largest change of the machine's own times during a search that counts."""


Factors = Mapping[str, Mapping[str, float]]
"""By scenario and way."""


class Search(NamedTuple):
    """How factors are searched for.

    Attributes:
        precision: When to stop.
        guesses: Where to begin, by way; others begin at the bound.
        quality: What 95 % of the frames must be.
        tell: Called with each result.
    """

    precision: float
    guesses: Mapping[str, float]
    quality: Quality
    tell: Callable[[str], None]

    def factor(self, way: str, ready: Prepared, policy: PolicySpec, measure: Measure) -> float:
        """Return the largest factor at which trials pass; 0 if there is none."""
        wanted = ready.as_run.model_copy(update={"policy": policy})
        guess, stride = certify(ready.as_run, ready.plan.machine).sustainable_factor or 1.0, 2.0
        if self.guesses.get(way):
            guess, stride = self.guesses[way], 1 + 2 * self.precision
        found = find_saturation(
            wanted,
            Kept.of(wanted, quality=self.quality),
            measure,
            guess=guess,
            stride=stride,
            precision=self.precision,
        )
        factor = found.factor or 0.0
        self.tell(f"  {wanted.name}, {way}: {factor:.3g} ({len(found.trials)} trials)")
        return factor


def main() -> int:
    """Measure and print."""
    arguments = _arguments()
    console = new_console()
    print_environment(console)
    names = arguments.scenarios[:1] if arguments.quick else arguments.scenarios
    tell = partial(console.print, highlight=False)
    if not arguments.here:
        with OtherWork() as other:
            found = {name: _described(name, arguments, tell) for name in names}
        _print(console, found, f"{arguments.quality.value} >= 0.95, simulated on {MACHINE}")
    else:
        with OtherWork() as other, awake(available_cores()) as refusal:
            console.print(refusal or "cores are kept awake")
            both = {name: _here(name, arguments, tell) for name in names}
        for at, how in enumerate(("simulated", "measured")):
            what = f"{arguments.quality.value} >= 0.95, {how} on this machine"
            _print(console, {name: b[at] for name, b in both.items()}, what)
        console.print(_agreement(both))
    console.print(other.note)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one scenario, rough")
    parser.add_argument("--here", action="store_true", help="on this machine, measured as well")
    parser.add_argument(
        "--in-time",
        action="store_const",
        const=Quality.HIT_RATE,
        default=Quality.QOE,
        dest="quality",
        help="only frames count that meet their deadline",
    )
    parser.add_argument("--duration", default="10s", help="of a trial at the scenario's own rates")
    parser.add_argument("--trial", default="10s", help="length of each trial on this machine")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    names = [name for name in policy_names() if name != "fixed"]
    parser.add_argument("--policies", nargs="+", choices=names, default=names)
    return parser.parse_args()


def _scenario(name: str, duration: str) -> Scenario:
    found = load_scenario(library.scenario_path(f"lib:xrbench-{name}"))
    return found.with_options(duration_s=parse_seconds(duration))


def _described(
    name: str, arguments: argparse.Namespace, tell: Callable[[str], None]
) -> dict[str, float]:
    """Return the factor by way, simulated on the machine file."""
    ready = prepare(_scenario(name, arguments.duration), machine_file=MACHINE)
    precision = 0.1 if arguments.quick else 0.01
    found, _ = _simulated(ready, Search(precision, {}, arguments.quality, tell), arguments.policies)
    return found


def _here(
    name: str, arguments: argparse.Namespace, tell: Callable[[str], None]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the factor by way, simulated on this machine and measured on it."""
    scenario = _scenario(name, arguments.trial).model_copy(update={"machine": None})
    kept = Kept.of(scenario, quality=arguments.quality)
    with Canary(prepare(scenario, Profiler(cache=default_cache()))) as canary:
        watch = Watch(canary, tell, tolerance=_STEADY)
        tries = count()
        ready = watch.first("profile", lambda: _measured(scenario, next(tries)))
        search = Search(_PRECISION, {}, arguments.quality, tell)
        simulated, single = _simulated(ready, search, arguments.policies, how=_as_long)
        search = Search(_PRECISION, simulated, arguments.quality, tell)
        ways, measured = _ways(ready, arguments.policies), {}
        if single is not None:
            with on_this_machine(ready.planned(_alone(ready.plan, single)), kept) as measure:
                find = partial(search.factor, ALONE, ready, ALONE_POLICY, measure)
                measured[ALONE] = watch.steady(ALONE, find)
        with on_this_machine(ready, kept) as measure:
            for way, policy in ways.items():
                find = partial(search.factor, way, ready, policy, measure)
                measured[way] = watch.steady(way, find)
        tell(f"  {watch.note}")
    return simulated, measured


def _measured(scenario: Scenario, tries: int) -> Prepared:
    """Measure what the cache does not know; all of it if that was tried before."""
    cache = dataclasses.replace(default_cache(), reads=not tries)
    return prepare(scenario, Profiler(cache=cache), surroundings=True)


def _simulated(
    ready: Prepared,
    search: Search,
    policies: Iterable[str],
    how: Callable[[Measure], Measure] = lambda measure: measure,
) -> tuple[dict[str, float], str | None]:
    """Return the factor by way, and which processor does best alone; None if none runs all."""
    alone = {
        only.processors[0].name: search.factor(
            f"{ALONE} ({only.processors[0].name})", ready, ALONE_POLICY, how(on_machine(only))
        )
        for only in _single(ready)
    }
    best = max(alone, key=alone.__getitem__, default=None)
    measure = how(on_machine(ready.plan))
    found = {
        way: search.factor(way, ready, policy, measure)
        for way, policy in _ways(ready, policies).items()
    }
    return (found if best is None else {ALONE: alone[best], **found}), best


def _as_long(measure: Measure) -> Measure:
    """Let a simulated trial last as long as one here, at any rates."""

    def longer(scenario: Scenario) -> RunCounts:
        times = {
            "duration_s": scenario.duration_s * scenario.rate_factor,
            "warmup_s": scenario.warmup_s * scenario.rate_factor,
        }
        return measure(scenario.model_copy(update=times))

    return longer


def _ways(ready: Prepared, policies: Iterable[str]) -> dict[str, PolicySpec]:
    """Return those that use all processors, the one without a scheduler first."""
    mapping = best_mapping(ready.as_run, ready.plan)
    fixed = PolicySpec(name="fixed", options={"assignment": mapping})
    found = {} if mapping is None else {FIXED: fixed}
    return found | {name: PolicySpec(name=name) for name in policies}


def _single(ready: Prepared) -> Iterable[Plan]:
    """Plans for one processor each, of those that can run everything."""
    for processor in ready.plan.processors:
        profile = _restricted(ready.plan.measured, processor.name)
        if set(ready.as_run.models) <= {key.model for key, _ in profile}:
            yield _alone(ready.plan, processor.name)


def _alone(plan: Plan, processor: str) -> Plan:
    """Copy a plan with one processor, on which everything is loaded."""
    machine = dataclasses.replace(
        plan.machine, processors=tuple(p for p in plan.processors if p.name == processor)
    )
    profile = _restricted(plan.measured, processor)
    return dataclasses.replace(plan, machine=machine).with_profile(profile).loading(profile)


def _restricted(profile: Profile, processor: str) -> Profile:
    return Profile({key: entry for key, entry in profile if key.processor == processor})


def _print(console: Console, found: Factors, what: str) -> None:
    console.print(f"largest factor on the rates with {what}")
    console.print(_table(found))
    console.print(_winners(found))


def _agreement(both: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]]) -> str:
    """Say how far the simulated factors are from the measured ones."""
    ratios = [
        simulated[way] / factor
        for simulated, measured in both.values()
        for way, factor in measured.items()
        if factor and simulated[way]
    ]
    if len(ratios) < 2:
        return "too few factors to compare"
    low, median, high = statistics.quantiles(ratios, n=4)
    return (
        f"simulated over measured: median {median:.2f}, half of {len(ratios)} between {low:.2f} "
        f"and {high:.2f}"
    )


def _table(found: Factors) -> Table:
    figures = [*(name.replace("-", " ") for name in found), "mean"]
    table = new_table(["policy"], figures, wraps=True)
    rows = list(dict.fromkeys(policy for row in found.values() for policy in row))
    best = {name: max(row.values()) for name, row in found.items()}
    for policy in rows:
        values = {name: row.get(policy) for name, row in found.items()}
        known = [value for value in values.values() if value]
        mean = math.exp(sum(map(math.log, known)) / len(known)) if known else 0.0
        cells = [
            "-" if v is None else f"[bold]{v:.3g}[/]" if v == best[name] else f"{v:.3g}"
            for name, v in values.items()
        ]
        table.add_row(policy, *cells, f"{mean:.3g}")
    return table


def _winners(found: Factors) -> str:
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
