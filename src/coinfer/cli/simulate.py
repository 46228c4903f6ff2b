"""`coinfer simulate`: run a scenario in virtual time and print what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coinfer.cli.console import err, out

if TYPE_CHECKING:
    from coinfer.bound import Bound
    from coinfer.metrics.summary import Summary
    from coinfer.planner.stage import Stage
    from coinfer.sim import Simulated

__all__ = ["simulate"]


def simulate(
    scenario: Annotated[
        Path, typer.Argument(help="A scenario file (YAML) or lib:NAME.", metavar="SCENARIO")
    ],
    machine: Annotated[
        Path | None,
        typer.Option(help="A machine file instead of the scenario's.", metavar="FILE"),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Policy instead of the scenario's.", metavar="NAME")
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option(help="Measured time instead of the scenario's, e.g. 1h.", metavar="SECONDS"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed instead of the scenario's.")] = None,
    rate_factor: Annotated[
        float | None, typer.Option(help="Multiply all open-loop rates.", metavar="F")
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Executions take their mean times.")
    ] = False,
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
    """Run a scenario in virtual time and show what would be reached, beside the bound.

    On a machine that a file describes, or on this one as it was measured. The scheduling code is
    that of a real run.
    """
    from coinfer import sim
    from coinfer.cli.output import check_writable, write_json
    from coinfer.cli.profiler_bar import profiler_bar
    from coinfer.cli.recording import recorded
    from coinfer.cli.reporting import check_report, report_run
    from coinfer.metrics.table import render
    from coinfer.planner.stage import set_stage
    from coinfer.profiling import default_cache
    from coinfer.units import parse_seconds
    from coinfer.workload.scenario_file import load_scenario

    check_writable(json, trace, record, report)
    check_report(report)
    wanted = load_scenario(scenario).with_options(
        policy=policy,
        duration_s=None if duration is None else parse_seconds(duration),
        seed=seed,
        rate_factor=rate_factor,
    )
    with profiler_bar(err()) as progress:
        stage = set_stage(wanted, machine_file=machine, cache=default_cache(), progress=progress)
    with (
        recorded(record, stage.limits.scenario, stage.machine.processors) as log,
        _bar(wanted.end_s) as on_tick,
    ):
        done = sim.simulate(
            stage.limits.scenario,
            stage.machine,
            stage.policy,
            deterministic=deterministic,
            keep_records=trace is not None or report is not None,
            observer=log,
            on_tick=on_tick,
        )
    summary = _summary(stage, done)
    console = out()
    console.print(render(summary))
    if json is not None:
        write_json(json, summary.to_json())
        console.print(f"JSON: {json}", soft_wrap=True)
    if trace is not None:
        _write_trace(trace, stage, done)
        console.print(f"trace: {trace} (open it at https://ui.perfetto.dev)", soft_wrap=True)
    if record is not None:
        console.print(f"log: {record} (check it with `coinfer replay`)", soft_wrap=True)
    if report is not None:
        report_run(
            report, summary, done.recorder, scenario_file=scenario, optimum=_optimum(stage, done)
        )


def _summary(stage: Stage, done: Simulated) -> Summary:
    from coinfer.hardware.environment import describe
    from coinfer.metrics.summary import summarise

    optimum = _optimum(stage, done)
    limits, machine = stage.limits, stage.machine
    scenario = limits.scenario
    return summarise(
        done.tallies,
        scenario=scenario.name,
        mode="simulate",
        policy=scenario.policy.name,
        seed=scenario.seed,
        processors=machine.processors,
        models=scenario.models,
        environment={**describe(), "machine": machine.name},
        bound_per_s=None if optimum is None else optimum.throughput_per_s,
        output_errors=stage.output_errors,
        warnings=limits.warnings,
    )


def _optimum(stage: Stage, done: Simulated) -> Bound | None:
    from coinfer.planner.offered import offered_optimum

    limits = stage.limits
    return offered_optimum(
        limits.machine.profile, stage.machine.processors, limits.scenario, done.tallies
    )


def _write_trace(path: Path, stage: Stage, done: Simulated) -> None:
    from coinfer.cli.output import writing
    from coinfer.metrics.trace import write_trace

    scenario = stage.limits.scenario
    with writing(path):
        write_trace(
            path,
            requests=done.recorder.requests(),
            executions=done.recorder.executions(),
            processors=stage.machine.processors,
            metadata={
                "scenario": scenario.name,
                "policy": scenario.policy.name,
                "seed": scenario.seed,
            },
        )


@contextmanager
def _bar(end_s: float) -> Iterator[Callable[[float], None]]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = err()
    with Progress(
        TextColumn("simulating"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=end_s if end_s < math.inf else None)
        yield lambda now_s: bar.update(task, completed=now_s)
