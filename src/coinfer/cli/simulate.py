"""`coinfer simulate`: run a scenario in virtual time and print what came of it."""

from __future__ import annotations

from typing import Annotated

import typer

from coinfer.cli import options
from coinfer.cli.console import out

__all__ = ["simulate"]


def simulate(
    scenario: options.ScenarioArgument,
    machine: options.MachineOption = None,
    plan: options.PlanOption = None,
    policy: options.PolicyOption = None,
    policy_option: options.PolicyOptionsOption = None,
    duration: options.DurationOption = None,
    seed: options.SeedOption = None,
    rate_factor: options.RateFactorOption = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Executions take their mean times.")
    ] = False,
    calibrate: Annotated[
        str | None,
        typer.Option(
            help="First run the models on this machine for so long, e.g. 20s, and correct what "
            "was measured by what that shows.",
            metavar="SECONDS",
        ),
    ] = None,
    json: options.JsonOption = None,
    trace: options.TraceOption = None,
    record: options.RecordOption = None,
    report: options.ReportOption = None,
) -> None:
    """Run a scenario in virtual time and show what would be reached, beside the bound.

    On a machine that a file describes, or on this one as it was measured. The scheduling code is
    that of a real run.
    """
    from coinfer import sim
    from coinfer.cli.preparing import prepared
    from coinfer.cli.progress_bars import time_bar
    from coinfer.cli.recording import recorded
    from coinfer.cli.results import Result, ResultFiles
    from coinfer.experiments.certificate import certify
    from coinfer.metrics.table import render
    from coinfer.units import parse_seconds

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
    ready = prepared(
        wanted,
        plan,
        machine=machine,
        policy=policy,
        policy_option=policy_option,
        is_simulated=True,
        calibrate_s=None if calibrate is None else parse_seconds(calibrate),
    )
    with recorded(record, ready) as log, time_bar("simulating", wanted.end_s) as on_tick:
        done = sim.simulate(
            ready.as_run,
            ready.plan,
            deterministic=deterministic,
            keep_records=files.need_records,
            observer=log,
            on_tick=on_tick,
        )
    certificate = certify(ready.as_run, ready.plan.machine)
    result = Result.of(
        ready,
        done.run_counts,
        done.recorder,
        mode="simulate",
        warnings=(*ready.warnings, *certificate.warnings()),
        environment={"machine": ready.plan.machine.name},
    )
    out().print(render(result.summary))
    files.write(result, scenario)
