"""`coinfer doctor`: print the diagnosis of this machine. Decides nothing."""

from __future__ import annotations

import json as json_format
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from coinfer.cli.console import out, print_lines
from coinfer.hardware.diagnosis import Diagnosis, Severity, diagnose
from coinfer.units import format_bytes

__all__ = ["doctor"]

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show what was found on this machine, what is missing, and how to mend it.

    Exit status 1 if no model can run here.
    """
    diagnosis = diagnose()
    if json:
        print_lines(json_format.dumps(diagnosis.to_json(), indent=2))
    else:
        _show(diagnosis, out())
    if not diagnosis.usable:
        raise typer.Exit(1)


def _show(diagnosis: Diagnosis, console: Console) -> None:
    console.print(_machine(diagnosis))
    console.print(_backends(diagnosis))
    console.print(_processors(diagnosis))
    _show_findings(diagnosis, console)


def _machine(diagnosis: Diagnosis) -> Table:
    environment = diagnosis.environment
    cores = diagnosis.cores
    numbers = ", ".join(map(str, cores.numbers))
    table = Table(title="Machine", title_justify="left", show_header=False)
    version = environment["coinfer"] + (", compiled," if environment["compiled"] else "")
    table.add_row("coinfer", f"{version} on Python {environment['python']}")
    table.add_row("system", environment["os"])
    table.add_row("processor", environment["cpu"])
    table.add_row("cores used", f"{len(cores.numbers)} (number {numbers}): {cores.reason}")
    table.add_row("pinning", "works" if diagnosis.pinning else "does not work here")
    memory = environment["memory_bytes"]
    table.add_row("memory", "not known" if memory is None else format_bytes(memory))
    return table


def _backends(diagnosis: Diagnosis) -> Table:
    table = Table("backend", "version", "device", "precisions", "description")
    table.title, table.title_justify = "Backends", "left"
    for each in diagnosis.backends:
        if each.backend is None:
            table.add_row(each.name, "not usable", "", "", "see below")
            continue
        version = ", ".join(each.backend.versions().values()) or "built in"
        for device in each.backend.devices():
            precisions = ", ".join(device.precisions)
            table.add_row(each.name, version, device.name, precisions, device.description)
    return table


def _processors(diagnosis: Diagnosis) -> Table:
    table = Table("processor", "backend", "device", "units", "threads", "precision", "pinned to")
    table.title, table.title_justify = "Default processors", "left"
    for each in diagnosis.processors:
        table.add_row(
            each.name,
            each.backend,
            each.device,
            ", ".join(sorted(each.units)),
            str(each.threads),
            each.precision,
            ", ".join(map(str, each.cores)) or "not pinned",
        )
    return table


def _show_findings(diagnosis: Diagnosis, console: Console) -> None:
    if not diagnosis.findings:
        console.print("Nothing to mend.")
    for finding in diagnosis.findings:
        # Remedies hold brackets, as in coinfer[openvino], which must not be read as markup.
        console.print(f"{finding.severity}: ", style=_STYLES[finding.severity], end="")
        remedy = f"; {finding.remedy}" if finding.remedy else ""
        console.print(f"{finding.text}{remedy}", markup=False, soft_wrap=True)
