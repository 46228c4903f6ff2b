"""`coinfer simulate`: run a scenario in virtual time and print what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coinfer.cli.console import out
from coinfer.cli.options import (
    DurationOption,
    JsonOption,
    MachineOption,
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
    from coinfer.runtime.prepared import Prepared
    from coinfer.sim import Simulated

__all__ = ["simulate"]


def simulate(
    scenario: ScenarioArgument,
    machine: MachineOption = None,
    plan: PlanOption = None,
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
    from coinfer.cli.preparing import prepared
    from coinfer.cli.recording import recorded
    from coinfer.cli.results import ResultFiles
    from coinfer.cli.time_bar import time_bar
    from coinfer.metrics.table import render
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
    ready = prepared(
        wanted,
        plan,
        machine=machine,
        policy=policy,
        is_simulated=True,
        calibrate_s=None if calibrate is None else parse_seconds(calibrate),
    )
    with (
        recorded(record, ready) as log,
        time_bar("simulating", wanted.end_s) as on_tick,
    ):
        done = sim.simulate(
            ready.as_run,
            ready.plan,
            deterministic=deterministic,
            keep_records=files.need_records,
            observer=log,
            on_tick=on_tick,
        )
    optimum = _optimum(ready, done)
    summary = _summary(ready, done, optimum)
    out().print(render(summary))
    files.write(
        summary,
        done.recorder,
        ready.plan.processors,
        scenario_file=scenario,
        optimum=None if optimum is None else optimum.bound,
    )


def _summary(ready: Prepared, done: Simulated, optimum: Optimum | None) -> Summary:
    from coinfer.experiments.certificate import certify
    from coinfer.hardware.environment import describe
    from coinfer.metrics.summary import summarise

    plan, scenario = ready.plan, ready.as_run
    return summarise(
        done.run_counts,
        scenario=scenario.name,
        mode="simulate",
        policy=plan.policy.name,
        seed=scenario.seed,
        processors=plan.processors,
        models=scenario.models,
        environment={**describe(), "machine": plan.machine.name},
        bound_per_s=None if optimum is None else optimum.bound.throughput_per_s,
        mix_of="offered" if optimum is None else optimum.mix_of,
        output_errors=plan.output_errors,
        warnings=(*ready.warnings, *certify(scenario, plan.machine).warnings()),
    )


def _optimum(ready: Prepared, done: Simulated) -> Optimum | None:
    from coinfer.experiments.offered import offered_optimum

    plan = ready.plan
    return offered_optimum(plan.measured, plan.processors, ready.as_run, done.run_counts)
