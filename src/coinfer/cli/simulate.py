"""`coinfer simulate`: run a scenario in virtual time and print what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coinfer.cli.console import err, out
from coinfer.cli.options import (
    DurationOption,
    JsonOption,
    MachineOption,
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
    from coinfer.metrics.summary import Summary
    from coinfer.planner.offered import Optimum
    from coinfer.planner.stage import Stage
    from coinfer.sim import Simulated

__all__ = ["simulate"]


def simulate(
    scenario: ScenarioArgument,
    machine: MachineOption = None,
    policy: PolicyOption = None,
    policy_option: PolicyOptionsOption = None,
    duration: DurationOption = None,
    seed: SeedOption = None,
    rate_factor: RateFactorOption = None,
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
    json: JsonOption = None,
    trace: TraceOption = None,
    record: RecordOption = None,
    report: ReportOption = None,
) -> None:
    """Run a scenario in virtual time and show what would be reached, beside the bound.

    On a machine that a file describes, or on this one as it was measured. The scheduling code is
    that of a real run.
    """
    from coinfer import sim
    from coinfer.cli.profiler_bar import profiler_bar
    from coinfer.cli.recording import recorded
    from coinfer.cli.results import ResultFiles
    from coinfer.cli.time_bar import time_bar
    from coinfer.metrics.table import render
    from coinfer.planner.stage import set_stage
    from coinfer.profiling import default_cache
    from coinfer.units import parse_seconds

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
    with profiler_bar(err()) as progress:
        stage = set_stage(
            wanted,
            machine_file=machine,
            cache=default_cache(),
            progress=progress,
            calibrate_s=None if calibrate is None else parse_seconds(calibrate),
        )
    with (
        recorded(record, stage.limits.scenario, stage.machine.processors) as log,
        time_bar("simulating", wanted.end_s) as on_tick,
    ):
        done = sim.simulate(
            stage.limits.scenario,
            stage.machine,
            stage.policy,
            deterministic=deterministic,
            keep_records=files.need_records,
            observer=log,
            on_tick=on_tick,
        )
    optimum = _optimum(stage, done)
    summary = _summary(stage, done, optimum)
    out().print(render(summary))
    files.write(
        summary,
        done.recorder,
        stage.machine.processors,
        scenario_file=scenario,
        optimum=None if optimum is None else optimum.bound,
    )


def _summary(stage: Stage, done: Simulated, optimum: Optimum | None) -> Summary:
    from coinfer.hardware.environment import describe
    from coinfer.metrics.summary import summarise

    limits, machine = stage.limits, stage.machine
    scenario = limits.scenario
    return summarise(
        done.run_counts,
        scenario=scenario.name,
        mode="simulate",
        policy=scenario.policy.name,
        seed=scenario.seed,
        processors=machine.processors,
        models=scenario.models,
        environment={**describe(), "machine": machine.name},
        bound_per_s=None if optimum is None else optimum.bound.throughput_per_s,
        mix_of="offered" if optimum is None else optimum.mix_of,
        output_errors=stage.output_errors,
        warnings=limits.warnings,
    )


def _optimum(stage: Stage, done: Simulated) -> Optimum | None:
    from coinfer.planner.offered import offered_optimum

    limits = stage.limits
    return offered_optimum(
        limits.machine.profile, stage.machine.processors, limits.scenario, done.run_counts
    )
