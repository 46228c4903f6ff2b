"""`coinfer compress`: decompose a model's layers, and say what that gains and costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from coinfer.cli.console import new_table, out, print_lines
from coinfer.cli.options import AllowDataOption, DimOption, InputsOption, sizes
from coinfer.cli.output import check_writable, say, write_result, write_text, writing
from coinfer.errors import ConfigurationError
from coinfer.planner.model_source import resolve_model
from coinfer.units import format_count

if TYPE_CHECKING:
    from coinfer.graph.compressing.rank_rule import RankRule
    from coinfer.model import Model
    from coinfer.planner.compressing.report import CompressionReport, LayerReport

__all__ = ["compress"]


def compress(
    model: Annotated[str, typer.Argument(help="An .onnx file, or zoo:NAME.", metavar="MODEL")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The compressed ONNX file. Without, rules other than latency only choose ranks.",
            metavar="FILE",
        ),
    ] = None,
    ranks: Annotated[
        str,
        typer.Option(
            help="Rule: by measured time, or the share that is kept of channels, of squared "
            "weights, or of all operations.",
            metavar="latency|ratio:R|energy:E|evbmf|macs:F",
        ),
    ] = "latency",
    max_error: Annotated[
        float | None,
        typer.Option(
            help="The most that outputs may be off on held-out samples, ||out - ref|| / ||ref||; "
            "by latency 0.02 unless given; inf: do not look.",
            metavar="E",
        ),
    ] = None,
    inputs: InputsOption = None,
    svd: Annotated[
        bool, typer.Option("--svd", help="Decompose 1x1 convolutions and dense layers too.")
    ] = False,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Quantise instead of decomposing; --inputs give the ranges."),
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="By the weights alone, whatever the inputs are like.")
    ] = False,
    processor: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure on this processor, as named by `coinfer doctor`; repeat it.",
            metavar="NAME",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Decides which samples judge, and random ones.", min=0)
    ] = 0,
    dim: DimOption = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Draw error against time as an SVG.", metavar="FILE"),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the report as JSON.", metavar="FILE")
    ] = None,
    allow_data_in: AllowDataOption = None,
) -> None:
    """Replace layers by smaller ones (Tucker-2, SVD), by default only where that is faster.

    With --int8 layers stay and compute in 8 bits instead. By latency and with --int8 the result is
    never slower than the original on the processors measured, and never further off than
    --max-error on held-out samples.
    """
    from coinfer.graph.compressing.rank_rule import RankRule

    check_writable(output, json_file, picture)
    wanted = _Wanted(
        rule=RankRule.parse(ranks),
        max_error=max_error,
        inputs=inputs,
        svd=svd,
        int8=int8,
        plain=plain,
        processors=processor,
        seed=seed,
        dims=sizes(dim),
    )
    _check(wanted, output, picture)
    report = _made(resolve_model(model, data_root=allow_data_in), wanted, output)
    _print(report)
    if output is not None:
        say("model", output)
    if picture is not None:
        from coinfer.planner.compressing.picture import picture_of

        write_text(picture, picture_of(report))
        say("picture", picture)
    write_result(json_file, report.to_json(), "report")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """The options that say how; each is an argument of the command."""

    rule: RankRule
    max_error: float | None
    inputs: Path | None
    svd: bool
    int8: bool
    plain: bool
    processors: list[str] | None
    seed: int
    dims: Mapping[str, int]


def _check(wanted: _Wanted, output: Path | None, picture: Path | None) -> None:
    """Refuse options that would do nothing.

    Raises:
        ConfigurationError: there are some.
    """
    if picture is not None and wanted.int8:
        raise ConfigurationError("--picture draws the choice of ranks; leave it out with --int8")
    if picture is not None and not wanted.rule.is_measured:
        raise ConfigurationError("--picture draws what ranks by latency measure; leave it out")
    if output is not None or wanted.int8 or wanted.rule.is_measured:
        return
    idle = {
        "--max-error": wanted.max_error is not None,
        "--inputs": wanted.inputs is not None,
        "--plain": wanted.plain,
        "--processor": bool(wanted.processors),
        "--seed": wanted.seed != 0,
    }
    if given := [option for option, is_given in idle.items() if is_given]:
        raise ConfigurationError(
            f"without -o FILE, ranks by {wanted.rule} are only counted, by the weights alone, and "
            f"{', '.join(given)} would change nothing; give -o, or leave {given[0]} out"
        )


def _made(model: Model, wanted: _Wanted, output: Path | None) -> CompressionReport:
    """Compress, and write the model if that is asked for; else ranks are perhaps only counted."""
    from coinfer.api.compression import choose_ranks
    from coinfer.api.compression import compress as compressed
    from coinfer.cli.progress_bars import telling

    if output is None and not wanted.int8 and not wanted.rule.is_measured:
        return choose_ranks(model, ranks=wanted.rule, svd=wanted.svd, dims=wanted.dims)
    with telling("quantising" if wanted.int8 else "compressing") as tell:
        found = compressed(
            model,
            ranks=wanted.rule,
            max_error=wanted.max_error,
            samples=wanted.inputs,
            svd=wanted.svd,
            int8=wanted.int8,
            data_aware=False if wanted.plain else None,
            processors=wanted.processors,
            dims=wanted.dims,
            seed=wanted.seed,
            progress=tell,
        )
    if output is not None:
        with writing(output):
            found.save(output)
    return found.report


def _print(report: CompressionReport) -> None:
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
        samples = f"{report.held_out} held-out samples{again}"
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
