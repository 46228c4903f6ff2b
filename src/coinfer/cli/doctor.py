"""`coinfer doctor`: print the diagnosis of this machine. Decides nothing."""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from coinfer.cli.console import out, print_lines
from coinfer.hardware.diagnosis import Diagnosis, Severity, diagnose
from coinfer.machine.machine_json import encode_machine
from coinfer.machine.processor import Processor
from coinfer.machine.topology import Core, Topology
from coinfer.machine.topology_data import format_numbers
from coinfer.units import format_bytes

__all__ = ["doctor"]

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


_MOST_ROWS = 24
"""More processors than this are shown by what they have in common."""


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    machine_json: Annotated[
        bool,
        typer.Option(
            "--machine-json",
            help="Print only the machine as JSON, topology and processors, for other programs.",
        ),
    ] = False,
) -> None:
    """Show what was found on this machine, what is missing, and how to mend it.

    Exit status 1 if no model can run here.
    """
    diagnosis = diagnose()
    if machine_json:
        print_lines(json_format.dumps(encode_machine(diagnosis.machine), indent=2))
    elif json:
        print_lines(json_format.dumps(diagnosis.to_json(), indent=2))
    else:
        _show(diagnosis, out())
    if not diagnosis.usable:
        raise typer.Exit(1)


def _show(diagnosis: Diagnosis, console: Console) -> None:
    console.print(_machine(diagnosis))
    if diagnosis.cores.topology is not None:
        console.print(_cores(diagnosis.cores.topology))
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


def _cores(topology: Topology) -> Tree:
    """Draw NUMA nodes, last-level caches and the cores in them."""
    tree = Tree("Cores")
    nodes = {node: tree.add(f"NUMA node {node}") for node in topology.nodes}
    shared: dict[tuple[int, int, str], list[Core]] = {}
    for core in topology.cores:
        shared.setdefault((core.node, core.cache, core.kind), []).append(core)
    for (node, _, kind), cores in shared.items():
        smt = max(len(core.threads) for core in cores)
        used = [n for core in cores for n in core.threads if n in topology.used]
        text = f"last-level cache: {len(cores)} {kind} cores".replace("  ", " ")
        text += f" of {smt} hardware threads" if smt > 1 else ""
        firsts = format_numbers(core.threads[0] for core in cores)
        nodes[node].add(f"{text}, {firsts}; used: {format_numbers(used) or 'none'}")
    return tree


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
    for group in _alike(diagnosis.processors):
        each = group[0]
        many = len(group) > 1
        table.add_row(
            f"{each.name} ... {group[-1].name} ({len(group)})" if many else each.name,
            each.backend,
            each.device,
            f"{len(each.units)} each" if many else ", ".join(sorted(each.units)),
            str(each.threads),
            each.precision,
            "its cores" if many and each.cores else format_numbers(each.cores) or "not pinned",
        )
    return table


def _alike(processors: Sequence[Processor]) -> list[list[Processor]]:
    """Put processors that are alike into one row, where a row for each would be too many."""
    if len(processors) <= _MOST_ROWS:
        return [[processor] for processor in processors]
    found: dict[tuple[object, ...], list[Processor]] = {}
    for processor in processors:
        found.setdefault(processor.likeness, []).append(processor)
    return list(found.values())


def _show_findings(diagnosis: Diagnosis, console: Console) -> None:
    if not diagnosis.findings:
        console.print("Nothing to mend.")
    for finding in diagnosis.findings:
        # Remedies hold brackets, as in coinfer[openvino], which must not be read as markup.
        console.print(f"{finding.severity}: ", style=_STYLES[finding.severity], end="")
        remedy = f"; {finding.remedy}" if finding.remedy else ""
        console.print(f"{finding.text}{remedy}", markup=False, soft_wrap=True)
