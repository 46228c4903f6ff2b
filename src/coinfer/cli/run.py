"""`coinfer run`: run a scenario on this machine and print what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["run"]


def run(
    scenario: Annotated[Path, typer.Argument(help="A scenario file (YAML).")],
    policy: Annotated[str | None, typer.Option(help="Policy instead of the scenario's.")] = None,
    duration: Annotated[str | None, typer.Option(help="Measured time, e.g. 10s.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed instead of the scenario's.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the result as JSON.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a trace for ui.perfetto.dev.")] = None,
) -> None:
    """Run a scenario on this machine: the models, their load, the processors, one policy."""
    from coinfer.cli.output import check_writable, write_json
    from coinfer.cli.profiler_bar import profiler_bar
    from coinfer.hardware.environment import describe
    from coinfer.metrics.summary import summarise
    from coinfer.metrics.table import render
    from coinfer.metrics.trace import write_trace
    from coinfer.planner.offered import offered_bound
    from coinfer.planner.preparation import prepare
    from coinfer.profiling import default_cache
    from coinfer.runtime.play import play
    from coinfer.units import parse_seconds
    from coinfer.workload.scenario_file import load_scenario

    console = Console(stderr=True)
    check_writable(json, trace)
    wanted = load_scenario(scenario).with_options(
        policy=policy,
        duration_s=None if duration is None else parse_seconds(duration),
        seed=seed,
    )
    with profiler_bar(console) as progress:
        ready = prepare(wanted, cache=default_cache(), progress=progress)
    with _running_bar(console) as bar:
        task = bar.add_task("running", total=wanted.end_s)
        played = play(
            wanted,
            ready.models,
            ready.processors,
            ready.profile,
            ready.policy,
            ready.feeds,
            keep_records=trace is not None,
            on_tick=lambda now_s: bar.update(task, completed=max(0.0, now_s)),
        )
    summary = summarise(
        played.tallies,
        scenario=wanted.name,
        mode="run",
        policy=wanted.policy.name,
        seed=wanted.seed,
        processors=ready.processors,
        models=ready.models,
        environment=describe(),
        bound_per_s=offered_bound(ready.measured, ready.processors, wanted, played.tallies),
        output_errors=ready.output_errors,
        warnings=ready.warnings,
    )
    Console().print(render(summary))
    if json is not None:
        write_json(json, summary.to_json())
        console.print(f"JSON: {json}", highlight=False)
    if trace is not None:
        write_trace(
            trace,
            requests=played.recorder.requests(),
            executions=played.recorder.executions(),
            processors=ready.processors,
            metadata={"scenario": wanted.name, "policy": wanted.policy.name, "seed": wanted.seed},
            origin_s=played.origin_s,
        )
        console.print(f"trace: {trace} (open it at ui.perfetto.dev)", highlight=False)
    if played.interrupted:
        console.print("interrupted: the figures are those of the time until then")
        raise typer.Exit(130)


def _running_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
