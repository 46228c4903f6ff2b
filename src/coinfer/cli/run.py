"""`coinfer run`: run a scenario on this machine and print what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coinfer.cli.console import out
from coinfer.cli.options import (
    DurationOption,
    ExplainOption,
    JsonOption,
    PlanOption,
    PolicyOption,
    PolicyOptionsOption,
    RateFactorOption,
    RecordOption,
    ReportOption,
    ScenarioArgument,
    SeedOption,
    TraceOption,
    wanted_scenario,
)

if TYPE_CHECKING:
    from coinfer.experiments.offered import Optimum
    from coinfer.metrics.summary import Summary
    from coinfer.runtime.play import Played
    from coinfer.runtime.prepared import Prepared

__all__ = ["run"]


def run(
    scenario: ScenarioArgument,
    plan: PlanOption = None,
    policy: PolicyOption = None,
    policy_option: PolicyOptionsOption = None,
    duration: DurationOption = None,
    seed: SeedOption = None,
    rate_factor: RateFactorOption = None,
    json: JsonOption = None,
    trace: TraceOption = None,
    record: RecordOption = None,
    report: ReportOption = None,
    explain: ExplainOption = None,
    keep_awake: Annotated[
        bool,
        typer.Option(
            "--keep-awake", help="Let cores spin instead of going idle: steadier, for more power."
        ),
    ] = False,
) -> None:
    """Run a scenario on this machine and show what was reached, beside the bound.

    Ctrl-C ends the load early: what runs is finished and what there is is shown.
    """
    from coinfer.cli.explaining import explainer_of, print_explanation
    from coinfer.cli.preparing import prepared
    from coinfer.cli.recording import recorded
    from coinfer.cli.results import ResultFiles
    from coinfer.cli.time_bar import time_bar
    from coinfer.hardware.awake import awake
    from coinfer.metrics.table import render
    from coinfer.runtime.play import play

    files = ResultFiles(json=json, trace=trace, record=record, report=report)
    files.check()
    wanted = wanted_scenario(
        scenario,
        policy=policy,
        policy_option=policy_option,
        duration=duration,
        seed=seed,
        rate_factor=rate_factor,
    )
    explainer = explainer_of(explain, wanted)
    ready = prepared(wanted, plan, policy=policy)
    cores = sorted({core for processor in ready.plan.processors for core in processor.cores})
    with (
        recorded(record, ready) as log,
        time_bar("running", wanted.end_s) as on_tick,
    ):
        played = play(
            ready,
            keep_records=files.need_records,
            observer=log,
            explainer=explainer,
            on_tick=on_tick,
            spinning=awake(cores) if keep_awake else None,
        )
    optimum = _optimum(ready, played)
    summary = _summary(ready, played, optimum)
    out().print(render(summary))
    print_explanation(explainer)
    files.write(
        summary,
        played.recorder,
        ready.plan.processors,
        scenario_file=scenario,
        optimum=None if optimum is None else optimum.bound,
        origin_s=played.origin_s,
    )
    if played.interrupted:
        raise typer.Exit(130)


def _summary(ready: Prepared, played: Played, optimum: Optimum | None) -> Summary:
    from coinfer.hardware.environment import describe
    from coinfer.metrics.summary import summarise

    scenario = ready.scenario
    interrupted = f"interrupted: these are the first {played.run_counts.duration_s:.3g} s"
    return summarise(
        played.run_counts,
        scenario=scenario.name,
        mode="run",
        policy=ready.plan.policy.name,
        seed=scenario.seed,
        processors=ready.plan.processors,
        models=ready.models,
        environment=describe(),
        bound_per_s=None if optimum is None else optimum.bound.throughput_per_s,
        mix_of="offered" if optimum is None else optimum.mix_of,
        output_errors=ready.plan.output_errors,
        warnings=(
            *([interrupted] if played.interrupted else []),
            *ready.warnings,
            *played.warnings,
        ),
    )


def _optimum(ready: Prepared, played: Played) -> Optimum | None:
    from coinfer.experiments.offered import offered_optimum

    plan = ready.plan
    return offered_optimum(plan.measured, plan.processors, ready.as_run, played.run_counts)
