"""`coinfer scenarios`: list and show the scenarios of the library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from coinfer.cli.console import out
from coinfer.cli.output import check_writable, write_text
from coinfer.scenarios import library

if TYPE_CHECKING:
    from coinfer.workload.scenario import Scenario

__all__ = ["scenarios_app"]

scenarios_app = typer.Typer(
    help="Published multi-model workloads. Wherever a scenario file is named, lib:NAME will do.",
    no_args_is_help=True,
)


@scenarios_app.command("list")
def list_scenarios() -> None:
    """List the scenarios of the library, and the machines to simulate them on."""
    from coinfer.workload.scenario_file import load_scenario

    table = Table("scenario", box=None, pad_edge=False)
    table.add_column("models", justify="right", no_wrap=True)
    table.add_column("offered", justify="right", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for name in library.scenario_names():
        reference = f"lib:{name}"
        scenario = load_scenario(reference)
        table.add_row(
            reference, str(len(scenario.models)), _offered(scenario), scenario.description
        )
    console = out()
    console.print(table)
    machines = ", ".join(f"lib:{name}" for name in library.machine_names())
    console.print(f"machines: {machines}")


@scenarios_app.command("show")
def show_scenario(
    name: Annotated[str, typer.Argument(metavar="NAME", help="With or without lib:.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write it to a file, to change it."),
    ] = None,
) -> None:
    """Print a scenario of the library."""
    text = library.scenario_path(f"lib:{name.removeprefix('lib:')}").read_text(encoding="utf-8")
    if output is None:
        out().print(text, end="", soft_wrap=True)
        return
    check_writable(output)
    write_text(output, text)


def _offered(scenario: Scenario) -> str:
    from coinfer.workload.load import Load

    if scenario.offline is not None:
        return f"{sum(scenario.offline.counts.values()):,} at once"
    rates = Load(scenario).open_rates_per_s()
    loops = len(scenario.models) - len(rates)
    texts = [f"{sum(rates.values()):.4g}/s"] if rates else []
    return " + ".join([*texts, f"{loops} closed"] if loops else texts)
