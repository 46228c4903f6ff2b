"""`coinfer simulate`: run a scenario in virtual time and print what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from coinfer.cli import options
from coinfer.cli.console import out, print_lines
from coinfer.cli.explaining import policy_lines
from coinfer.cli.preparing import prepared
from coinfer.cli.progress_bars import time_bar
from coinfer.cli.results import Result, ResultFiles
from coinfer.metrics.table import render
from coinfer.units import parse_seconds

if TYPE_CHECKING:
    from coinfer.runtime.prepared import Prepared
    from coinfer.sim import Simulated

__all__ = ["simulate"]

CalibrateOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="First run the models on this machine for so long, e.g. 20s, and correct what "
        "was measured by what that shows.",
        metavar="SECONDS",
    ),
]


@options.with_groups
def simulate(
    scenario: options.ScenarioArgument,
    *,
    machine: options.MachineOption = None,
    plan: options.PlanOption = None,
    changes: options.Changes,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Executions take their mean times.")
    ] = False,
    calibrate: CalibrateOption = None,
    files: ResultFiles,
) -> None:
    """Run a scenario in virtual time and show what would be reached, beside the bound.

    On a machine that a file describes, or on this one as it was measured. The scheduling code is
    that of a real run.
    """
    from coinfer.experiments.certificate import certify

    files.check()
    ready = prepared(
        changes.applied_to(scenario),
        plan,
        machine=machine,
        changes=changes,
        is_simulated=True,
        calibrate_s=None if calibrate is None else parse_seconds(calibrate),
    )
    done = _simulated(ready, files, deterministic=deterministic)
    certificate = certify(
        ready.as_run,
        ready.plan.machine,
        ready.plan.works,
        ready.plan.together,
        ready.plan.cheaper,
        ready.plan.fused_models,
    )
    result = Result.of(
        ready,
        done,
        mode="simulate",
        warnings=(*ready.warnings, *certificate.warnings()),
        environment={"machine": ready.plan.machine.name},
    )
    out().print(render(result.summary))
    print_lines(*policy_lines(ready.plan, why=False))
    files.write(result, scenario)


def _simulated(ready: Prepared, files: ResultFiles, *, deterministic: bool) -> Simulated:
    from coinfer import sim

    end_s = ready.scenario.end_s
    with files.recorded(ready) as log, time_bar("simulating", end_s) as on_tick:
        return sim.simulate(
            ready.as_run,
            ready.plan,
            deterministic=deterministic,
            keep_records=files.need_records,
            observer=log,
            on_tick=on_tick,
        )
