"""`coinfer cache`: list, check and remove what the cache keeps of prepared models and variants."""

from __future__ import annotations

import json as json_format
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from coinfer.artefacts import ArtefactStore, Entry, default_store
from coinfer.artefacts.variant_graphs import VariantGraph, variant_graphs
from coinfer.cli.console import out, print_lines
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.units import format_bytes, format_seconds

__all__ = ["cache_app"]

cache_app = typer.Typer(
    help="Prepared models that are kept on disk, so that engines start fast and share weights.",
    no_args_is_help=True,
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
_SHORT = 12
"""Digits of a digest that people see; any beginning of it that is of one only will do."""


@cache_app.command("ls")
def list_artefacts(json: _Json = False) -> None:
    """List the artefacts, what was used last first, and the graphs of variants."""
    store, graphs = default_store(), variant_graphs()
    entries = store.entries()
    total = sum(entry.size for entry in entries)
    if json:
        found = [_to_json(entry) for entry in entries]
        data = {"folder": str(store.folder), "bytes": total, "limit_bytes": store.limit_bytes}
        kept = [_graph_to_json(graph) for graph in graphs]
        print_lines(json_format.dumps({**data, "artefacts": found, "variants": kept}, indent=2))
        return
    if entries:
        out().print(_table(entries))
    limit = format_bytes(store.limit_bytes)
    print_lines(f"{format_bytes(total)} of at most {limit} in {store.folder}")
    if graphs:
        out().print(_graph_table(graphs))
        size = format_bytes(sum(graph.size for graph in graphs))
        print_lines(f"{size} of graphs of variants in {graphs[0].path.parent}")


@cache_app.command("verify")
def verify(json: _Json = False) -> None:
    """Read all artefacts and variants, and remove those that are not as they were written.

    Exit status 1 if there was one; it is made again when it is needed.
    """
    store, graphs = default_store(), variant_graphs()
    entries = store.entries()
    problems = {e.digest: problem for e in entries if (problem := store.verify(e.digest))}
    for digest in problems:
        store.remove_damaged(digest)
    for graph in graphs:
        if problem := graph.problem():
            problems[graph.digest] = problem
            _remove_graph(graph)
    n_checked = len(entries) + len(graphs)
    if not json:
        print_lines(*(f"{name[:_SHORT]} removed: {why}" for name, why in problems.items()))
    if json:
        data = {"checked": n_checked, "removed": problems}
        print_lines(json_format.dumps(data, indent=2))
    else:
        print_lines(f"{n_checked} checked, {len(problems)} removed")
    if problems:
        raise typer.Exit(1)


@cache_app.command("rm")
def remove(
    digests: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARTEFACT...", help="Their digests, or how these begin."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Remove all.")] = False,
    json: _Json = False,
) -> None:
    """Remove artefacts, and graphs of variants; artefacts that some process uses stay."""
    store = default_store()
    entries: list[Entry | VariantGraph] = [*store.entries(), *variant_graphs()]
    if every == bool(digests):
        raise ConfigurationError("name artefacts, as `coinfer cache ls` lists them, or give --all")
    chosen = entries if every else [_found(entries, each) for each in digests or ()]
    removed = [entry for entry in chosen if _remove(store, entry)]
    used = [entry for entry in chosen if entry not in removed]
    freed = sum(entry.size for entry in removed)
    if json:
        data: dict[str, Any] = {"removed": [e.digest for e in removed], "bytes": freed}
        print_lines(json_format.dumps({**data, "in_use": [e.digest for e in used]}, indent=2))
        return
    kept = f", {len(used)} in use stay" if used else ""
    print_lines(f"{len(removed)} removed, {format_bytes(freed)}{kept}")


def _remove(store: ArtefactStore, entry: Entry | VariantGraph) -> bool:
    if isinstance(entry, VariantGraph):
        _remove_graph(entry)
        return True
    try:
        return store.remove(entry.digest)
    except OSError as error:
        raise ConfigurationError(
            f"cannot remove {store.folder / entry.digest}: {error.strerror or error}; check who "
            "may write there"
        ) from error


def _remove_graph(graph: VariantGraph) -> None:
    try:
        graph.remove()
    except OSError as error:
        raise ConfigurationError(
            f"cannot remove {graph.path}: {error.strerror or error}; check who may write there"
        ) from error


def _found(entries: Sequence[Entry | VariantGraph], digits: str) -> Entry | VariantGraph:
    found = [entry for entry in entries if digits and entry.digest.startswith(digits)]
    if len(found) > 1:
        raise ConfigurationError(f"{len(found)} artefacts begin with {digits!r}; write more of it")
    if not found:
        known = [entry.digest[:_SHORT] for entry in entries]
        raise UnknownNameError.of("artefact", digits, known)
    return found[0]


def _table(entries: list[Entry]) -> Table:
    table = Table("artefact", "model", "backend", "precision", box=None, pad_edge=False)
    for heading in ("size", "made in", "unused for"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("state", overflow="fold")
    now = time.time()
    for entry in entries:
        artefact = entry.artefact
        parts = {} if artefact is None else artefact.parts
        table.add_row(
            entry.digest[:_SHORT],
            "" if artefact is None else artefact.model,
            str(parts.get("backend", "")),
            str(parts.get("precision", "")),
            format_bytes(entry.size),
            "" if artefact is None else format_seconds(artefact.made_s),
            format_seconds(max(0.0, now - entry.used_s)),
            _state(entry),
        )
    return table


def _graph_table(graphs: Sequence[VariantGraph]) -> Table:
    table = Table("variant", "model", "kind", box=None, pad_edge=False)
    for heading in ("size", "age"):
        table.add_column(heading, justify="right", no_wrap=True)
    now = time.time()
    for graph in graphs:
        age = format_seconds(max(0.0, now - graph.made_s))
        table.add_row(graph.digest[:_SHORT], graph.model, graph.kind, format_bytes(graph.size), age)
    return table


def _graph_to_json(graph: VariantGraph) -> dict[str, Any]:
    return {
        "digest": graph.digest,
        "model": graph.model,
        "kind": graph.kind,
        "bytes": graph.size,
        "made_s": graph.made_s,
        "path": str(graph.path),
    }


def _state(entry: Entry) -> str:
    if entry.artefact is None:
        return "damaged"
    if entry.artefact.refused:
        return f"none can be made: {entry.artefact.refused}"
    return "in use" if entry.in_use else ""


def _to_json(entry: Entry) -> dict[str, Any]:
    artefact = entry.artefact
    return {
        "digest": entry.digest,
        "model": None if artefact is None else artefact.model,
        "parts": None if artefact is None else artefact.parts,
        "refused": None if artefact is None else artefact.refused,
        "made_s": None if artefact is None else artefact.made_s,
        "bytes": entry.size,
        "used_s": entry.used_s,
        "in_use": entry.in_use,
        "is_damaged": artefact is None,
    }
