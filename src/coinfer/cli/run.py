"""`coinfer run`: run a scenario on this machine and print what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from coinfer.cli.console import err, out

if TYPE_CHECKING:
    from coinfer.bound import Bound
    from coinfer.metrics.summary import Summary
    from coinfer.planner.preparation import Preparation
    from coinfer.runtime.play import Played

__all__ = ["run"]


def run(
    scenario: Annotated[
        Path, typer.Argument(help="A scenario file (YAML) or lib:NAME.", metavar="SCENARIO")
    ],
    policy: Annotated[
        str | None, typer.Option(help="Policy instead of the scenario's.", metavar="NAME")
    ] = None,
    policy_option: Annotated[
        list[str] | None,
        typer.Option(help="Option of the policy, e.g. ageing_s=2; repeat it.", metavar="NAME=YAML"),
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option(help="Measured time instead of the scenario's, e.g. 10s.", metavar="SECONDS"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed instead of the scenario's.")] = None,
    rate_factor: Annotated[
        float | None, typer.Option(help="Multiply all open-loop rates.", metavar="F")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the result as JSON.", metavar="FILE")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Write a trace for ui.perfetto.dev; compressed if it ends in .gz.", metavar="FILE"
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            help="Write a log for `coinfer replay`; compressed if it ends in .gz.", metavar="FILE"
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a report, one HTML page with charts.", metavar="FILE"),
    ] = None,
) -> None:
    """Run a scenario on this machine and show what was reached, beside the bound.

    Ctrl-C ends the load early: what runs is finished and what there is is shown.
    """
    from coinfer.cli.output import check_writable, write_json
    from coinfer.cli.policy_option import policy_options
    from coinfer.cli.profiler_bar import profiler_bar
    from coinfer.cli.recording import recorded
    from coinfer.cli.reporting import check_report, report_run
    from coinfer.metrics.table import render
    from coinfer.planner.preparation import prepare
    from coinfer.profiling import default_cache
    from coinfer.runtime.play import play
    from coinfer.units import parse_seconds
    from coinfer.workload.scenario_file import load_scenario

    check_writable(json, trace, record, report)
    check_report(report)
    wanted = load_scenario(scenario).with_options(
        policy=policy,
        policy_options=policy_options(policy_option or []),
        duration_s=None if duration is None else parse_seconds(duration),
        seed=seed,
        rate_factor=rate_factor,
    )
    with profiler_bar(err()) as progress:
        ready = prepare(wanted, cache=default_cache(), progress=progress)
    with (
        recorded(record, wanted, ready.processors) as log,
        _running_bar(err(), wanted.end_s) as on_tick,
    ):
        played = play(
            wanted,
            ready.models,
            ready.processors,
            ready.profile,
            ready.policy,
            ready.feeds,
            keep_records=trace is not None or report is not None,
            observer=log,
            on_tick=on_tick,
        )
    summary = _summary(ready, played)
    console = out()
    console.print(render(summary))
    if json is not None:
        write_json(json, summary.to_json())
        console.print(f"JSON: {json}", soft_wrap=True)
    if trace is not None:
        _write_trace(trace, ready, played)
        console.print(f"trace: {trace} (open it at https://ui.perfetto.dev)", soft_wrap=True)
    if record is not None:
        console.print(f"log: {record} (check it with `coinfer replay`)", soft_wrap=True)
    if report is not None:
        report_run(
            report,
            summary,
            played.recorder,
            scenario_file=scenario,
            optimum=_optimum(ready, played),
            origin_s=played.origin_s,
        )
    if played.interrupted:
        raise typer.Exit(130)


def _summary(ready: Preparation, played: Played) -> Summary:
    from coinfer.hardware.environment import describe
    from coinfer.metrics.summary import summarise

    scenario = ready.scenario
    optimum = _optimum(ready, played)
    interrupted = f"interrupted: these are the first {played.tallies.duration_s:.3g} s"
    return summarise(
        played.tallies,
        scenario=scenario.name,
        mode="run",
        policy=scenario.policy.name,
        seed=scenario.seed,
        processors=ready.processors,
        models=ready.models,
        environment=describe(),
        bound_per_s=None if optimum is None else optimum.throughput_per_s,
        output_errors=ready.output_errors,
        warnings=(
            *([interrupted] if played.interrupted else []),
            *ready.warnings,
            *played.warnings,
        ),
    )


def _optimum(ready: Preparation, played: Played) -> Bound | None:
    from coinfer.planner.offered import offered_optimum

    return offered_optimum(
        ready.measured, ready.processors, ready.scenario, played.tallies, models=ready.models
    )


def _write_trace(path: Path, ready: Preparation, played: Played) -> None:
    from coinfer.cli.output import writing
    from coinfer.metrics.trace import write_trace

    scenario = ready.scenario
    with writing(path):
        write_trace(
            path,
            requests=played.recorder.requests(),
            executions=played.recorder.executions(),
            processors=ready.processors,
            metadata={
                "scenario": scenario.name,
                "policy": scenario.policy.name,
                "seed": scenario.seed,
            },
            origin_s=played.origin_s,
        )


@contextmanager
def _running_bar(console: Console, end_s: float) -> Iterator[Callable[[float], None]]:
    with Progress(
        TextColumn("running"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=end_s if end_s < math.inf else None)
        yield lambda now_s: bar.update(task, completed=max(0.0, now_s))
