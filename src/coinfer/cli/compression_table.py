"""Compression table: show a report of a compression. Computes no figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from coinfer.cli.console import new_table, out, print_lines
from coinfer.units import format_count

if TYPE_CHECKING:
    from coinfer.planner.compressing.report import CompressionReport, LayerReport

__all__ = ["print_report"]


def print_report(report: CompressionReport) -> None:
    """Print what became of the layers, and what that gains and costs."""
    rows = report.decomposed
    if rows:
        out().print(_table(rows))
    print_lines(f"{report.model}: {_summary(report)}")
    print_lines(*(f"{label:11}{text}" for label, text in _totals(report)))
    print_lines(*(f"warning: {warning}" for warning in report.warnings))


def _summary(report: CompressionReport) -> str:
    if report.int8 is not None:
        quantised, layers = report.int8.layers
        return f"{quantised} of {layers} heavy layers in int8 ({report.int8.way})"
    if report.rule == "int8":
        return "nothing is quantised"
    kept = len(report.layers) - len(report.decomposed)
    return (
        f"{len(report.decomposed)} layers decomposed, {kept} of that kind left, ranks by "
        f"{report.rule}"
    )


def _totals(report: CompressionReport) -> Iterator[tuple[str, str]]:
    (macs, fewer_macs), (parameters, fewer) = report.macs, report.parameters
    if macs is None or fewer_macs is None:
        yield "MACs", "unknown, because shapes are open; give sizes like --dim NAME=SIZE"
    else:
        removed = 1 - fewer_macs / macs if macs else 0.0
        yield "MACs", f"{macs:,} -> {fewer_macs:,} ({removed:.1%} fewer)"
    yield "parameters", f"{parameters:,} -> {fewer:,} ({1 - fewer / max(1, parameters):.1%} fewer)"
    if report.int8 is not None:
        size, smaller = report.int8.weight_bytes
        yield "weights", f"{size:,} -> {smaller:,} bytes ({1 - smaller / max(1, size):.1%} fewer)"
    for row in report.processors:
        ms = f"{row.before_s * 1e3:.3g} -> {row.after_s * 1e3:.3g} ms"
        yield row.name, f"{ms}, {row.ratio} as fast"
    if report.output_error is not None:
        limit = "" if report.max_error is None else f", {report.max_error:g} allowed"
        again = f", which judged {report.judged} choices" if report.judged > 1 else ""
        samples = f"{report.held_out} held-out sample{'s' * (report.held_out != 1)}{again}"
        yield "error", f"{report.output_error:.3g} on {samples}{limit}"


def _table(rows: Sequence[LayerReport]) -> Table:
    timed = list(rows[0].seconds)
    figures = ["channels", "kernel", "ranks", "MACs", "", "params", "", *(f"ms {n}" for n in timed)]
    table = new_table("layer", figures=[*figures, "w err", "out err"], padding=(0, 1, 0, 0))
    for row in rows:
        layer = row.layer
        groups = "" if layer.groups == 1 else f"{layer.groups} x "
        macs, fewer = layer.macs(), layer.macs(row.ranks)
        table.add_row(
            layer.name,
            f"{groups}{layer.inputs} {layer.outputs}",
            "x".join(map(str, layer.kernel)) or "-",
            str(row.ranks),
            *("?" if each is None else format_count(each) for each in (macs, fewer)),
            format_count(layer.parameters()),
            format_count(layer.parameters(row.ranks)),
            *(f"{a * 1e3:.3g} {b * 1e3:.3g}" for a, b in row.seconds.values()),
            *("-" if e is None else f"{e:.2g}" for e in (row.weight_error, row.output_error)),
        )
    return table
