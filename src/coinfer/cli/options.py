"""The arguments and options that several verbs share, and what a scenario becomes under them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from coinfer.workload.scenario import Scenario

__all__ = [
    "AllowDataOption",
    "DurationOption",
    "ExplainOption",
    "JsonOption",
    "MachineOption",
    "PlanOption",
    "PolicyOption",
    "PolicyOptionsOption",
    "RateFactorOption",
    "RecordOption",
    "ReportOption",
    "ScenarioArgument",
    "SeedOption",
    "TraceOption",
    "wanted_scenario",
]

AllowDataOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--allow-data-in",
        help="Follow links from a model and to its weights that end in this folder.",
        metavar="FOLDER",
    ),
]
ScenarioArgument: TypeAlias = Annotated[
    Path, typer.Argument(help="A scenario file (YAML) or lib:NAME.", metavar="SCENARIO")
]
MachineOption: TypeAlias = Annotated[
    Path | None, typer.Option(help="A machine file instead of the scenario's.", metavar="FILE")
]
PlanOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--plan", help="A plan's folder; nothing is measured.", metavar="FOLDER"),
]
PolicyOption: TypeAlias = Annotated[
    str | None, typer.Option(help="Policy instead of the scenario's.", metavar="NAME")
]
PolicyOptionsOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(help="Option of the policy, e.g. ageing_s=2; repeat it.", metavar="NAME=YAML"),
]
DurationOption: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Measured time instead of the scenario's, e.g. 10s.", metavar="SECONDS"),
]
ExplainOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Say why each span of a request went where it went: its number, a model's name for "
        "the slowest of that model, or `slowest`.",
        metavar="REQUEST",
    ),
]
SeedOption: TypeAlias = Annotated[int | None, typer.Option(help="Seed instead of the scenario's.")]
RateFactorOption: TypeAlias = Annotated[
    float | None, typer.Option(help="Multiply all open-loop rates.", metavar="F")
]
JsonOption: TypeAlias = Annotated[
    Path | None, typer.Option(help="Write the result as JSON.", metavar="FILE")
]
TraceOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Write a trace for ui.perfetto.dev; compressed if it ends in .gz.", metavar="FILE"
    ),
]
RecordOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Write a log for `coinfer replay`; compressed if it ends in .gz.", metavar="FILE"
    ),
]
ReportOption: TypeAlias = Annotated[
    Path | None, typer.Option(help="Write a report, one HTML page with charts.", metavar="FILE")
]


def wanted_scenario(
    file: Path,
    *,
    policy: str | None = None,
    policy_option: list[str] | None = None,
    duration: str | None = None,
    seed: int | None = None,
    rate_factor: float | None = None,
) -> Scenario:
    """Load a scenario and apply what the command line overrides.

    Raises:
        ScenarioError: the file is wrong.
        ConfigurationError: an option is.
    """
    from coinfer.cli.policy_option import policy_options
    from coinfer.units import parse_seconds
    from coinfer.workload.scenario_file import load_scenario

    return load_scenario(file).with_options(
        policy=policy,
        policy_options=policy_options(policy_option or []),
        duration_s=None if duration is None else parse_seconds(duration),
        seed=seed,
        rate_factor=rate_factor,
    )
