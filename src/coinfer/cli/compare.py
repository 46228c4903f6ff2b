"""`coinfer compare`: the figures of several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from coinfer.cli.console import new_table, out
from coinfer.cli.options import ReportOption
from coinfer.cli.output import check_writable, write_result
from coinfer.cli.results import check_report, report_comparison
from coinfer.documents.raw import parse_json, read_bytes
from coinfer.errors import ConfigurationError
from coinfer.metrics.comparison import MISS_RATE, Comparison, Row
from coinfer.metrics.comparison import compare as compare_runs
from coinfer.metrics.summary import Summary
from coinfer.units import format_digits

__all__ = ["compare"]


def compare(
    results: Annotated[
        list[Path],
        typer.Argument(help="Files that `--json` wrote; first what was measured.", metavar="FILE"),
    ],
    json: Annotated[
        Path | None, typer.Option(help="Write the comparison as JSON.", metavar="FILE")
    ] = None,
    report: ReportOption = None,
) -> None:
    """Compare runs and simulations of one scenario: measured with predicted, policy with policy.

    Differences are relative to the first file; those of the miss rate are in percentage points.
    """
    check_writable(json, report)
    check_report(report)
    summaries = [_read(path) for path in results]
    found = compare_runs(summaries)
    console = out()
    console.print(f"{found.scenario}: {', '.join(found.labels)}")
    console.print(_table(found))
    for warning in found.warnings:
        console.print(f"warning: {warning}")
    write_result(json, found.to_json())
    if report is not None:
        report_comparison(report, summaries, found.labels)


def _read(path: Path) -> Summary:
    try:
        return Summary.from_json(parse_json(read_bytes(path)))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot read {path}: {reason}") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _table(found: Comparison) -> Table:
    """One row per model and figure, two columns per run after the first."""
    table = new_table("model")
    table.add_column("figure", no_wrap=True)
    for at, label in enumerate(found.labels):
        table.add_column(label, justify="right", overflow="fold")
        if at:
            table.add_column("", justify="right", no_wrap=True)
    last = ""
    for row in found.rows:
        if set(row.values) == {None}:
            continue  # e.g. the miss rate of a model without deadlines
        if last not in ("", row.model):
            table.add_section()
        table.add_row(row.model if row.model != last else "", row.figure, *_cells(row))
        last = row.model
    return table


def _cells(row: Row) -> list[str]:
    is_share = row.figure == MISS_RATE
    cells: list[str] = []
    for at, (value, difference) in enumerate(zip(row.values, row.differences, strict=True)):
        cells.append("-" if value is None else f"{value:.1%}" if is_share else format_digits(value))
        if at:
            cells.append(_change(difference, is_share))
    return cells


def _change(difference: float | None, is_share: bool) -> str:
    if difference is None:
        return "-"
    return f"{100 * difference:+.1f} points" if is_share else f"{difference:+.1%}"
