"""Run one scenario with every policy and print one table. For `docs/policies.md`.

`python docs/compare.py examples/three-networks.yaml [DURATION]`. The policy `fixed` needs to be
told where each model runs: here models and cores are dealt out in turn.
"""

from __future__ import annotations

import sys
from itertools import cycle
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from coinfer.cli.results import Result
from coinfer.hardware import default_processors
from coinfer.metrics.summary import Summary
from coinfer.planner.prepare import prepare
from coinfer.policies import policy_names
from coinfer.profiling import Profiler, default_cache
from coinfer.runtime.play import play
from coinfer.units import parse_seconds
from coinfer.workload.scenario import PolicySpec, Scenario
from coinfer.workload.scenario_file import load_scenario


def main(path: str, duration: str | None = None) -> None:
    """Run all policies and print the table."""
    scenario = load_scenario(Path(path))
    if duration is not None:
        scenario = scenario.with_options(duration_s=parse_seconds(duration))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("policy", "per s", "of bound", "model", "p50 ms", "p99 ms", "max ms"):
        table.add_column(heading, justify="left" if heading in ("policy", "model") else "right")
    for policy in policy_names():
        _add_rows(table, _run(scenario.model_copy(update={"policy": _spec(policy, scenario)})))
    Console().print(table)


def _spec(policy: str, scenario: Scenario) -> PolicySpec:
    if policy != "fixed":
        return PolicySpec(name=policy)
    single = cycle(p.name for p in default_processors(["onnxruntime"]) if p.threads == 1)
    return PolicySpec(
        name=policy, options={"assignment": dict(zip(scenario.models, single, strict=False))}
    )


def _run(scenario: Scenario) -> Summary:
    ready = prepare(scenario, Profiler(cache=default_cache()))
    played = play(ready)
    return Result.of(ready, played.run_counts, played.recorder, mode="run", warnings=()).summary


def _add_rows(table: Table, summary: Summary) -> None:
    totals = (f"{summary.totals.throughput_per_s:.1f}", f"{summary.bound.fraction or 0:.0%}")
    first = (summary.policy, *totals)
    for name, row in summary.models.items():
        latency = row.latency_ms
        times = (latency.p50, latency.p99, latency.max)
        table.add_row(*first, name, *("-" if t is None else f"{t:.0f}" for t in times))
        first = ("", "", "")
    table.add_section()


if __name__ == "__main__":
    main(*sys.argv[1:])
