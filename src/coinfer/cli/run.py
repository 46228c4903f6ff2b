"""`coinfer run`: run a scenario on this machine and print what came of it."""

from __future__ import annotations

from typing import Annotated

import typer

from coinfer.cli import options
from coinfer.cli.console import out

__all__ = ["run"]


def run(
    scenario: options.ScenarioArgument,
    plan: options.PlanOption = None,
    policy: options.PolicyOption = None,
    policy_option: options.PolicyOptionsOption = None,
    duration: options.DurationOption = None,
    seed: options.SeedOption = None,
    rate_factor: options.RateFactorOption = None,
    json: options.JsonOption = None,
    trace: options.TraceOption = None,
    record: options.RecordOption = None,
    report: options.ReportOption = None,
    explain: options.ExplainOption = None,
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
    from coinfer.cli.progress_bars import time_bar
    from coinfer.cli.recording import recorded
    from coinfer.cli.results import Result, ResultFiles
    from coinfer.hardware.awake import awake
    from coinfer.metrics.table import render
    from coinfer.runtime.play import play

    files = ResultFiles(json=json, trace=trace, record=record, report=report)
    files.check()
    wanted = options.wanted_scenario(
        scenario,
        policy=policy,
        policy_option=policy_option,
        duration=duration,
        seed=seed,
        rate_factor=rate_factor,
    )
    explainer = explainer_of(explain, wanted)
    ready = prepared(wanted, plan, policy=policy, policy_option=policy_option)
    cores = sorted({core for processor in ready.plan.processors for core in processor.cores})
    with recorded(record, ready) as log, time_bar("running", wanted.end_s) as on_tick:
        played = play(
            ready,
            keep_records=files.need_records,
            observer=log,
            explainer=explainer,
            on_tick=on_tick,
            spinning=awake(cores) if keep_awake else None,
        )
    interruption = f"interrupted: these are the first {played.run_counts.duration_s:.3g} s"
    result = Result.of(
        ready,
        played.run_counts,
        played.recorder,
        mode="run",
        warnings=(
            *([interruption] if played.interrupted else []),
            *ready.warnings,
            *played.warnings,
        ),
        origin_s=played.origin_s,
    )
    out().print(render(result.summary))
    print_explanation(explainer)
    files.write(result, scenario)
    if played.interrupted:
        raise typer.Exit(130)
