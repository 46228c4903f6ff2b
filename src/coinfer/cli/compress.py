"""`coinfer compress`: decompose a model's layers, and say what that gains and costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coinfer.cli.compression_table import print_report
from coinfer.cli.options import AllowDataOption, DimOption, InputsOption, sizes, with_groups
from coinfer.cli.output import check_writable, say, write_result, write_text, writing
from coinfer.errors import ConfigurationError
from coinfer.planner.model_source import resolve_model

if TYPE_CHECKING:
    from coinfer.graph.compressing.rank_rule import RankRule
    from coinfer.model import Model
    from coinfer.planner.compressing.report import CompressionReport

__all__ = ["compress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """The options that say how, as a group for `with_groups`."""

    ranks: Annotated[
        str,
        typer.Option(
            help="Rule: by measured time, or the share that is kept of channels, of squared "
            "weights, or of all operations.",
            metavar="latency|ratio:R|energy:E|evbmf|macs:F",
        ),
    ] = "latency"
    max_error: Annotated[
        float | None,
        typer.Option(
            help="The most that outputs may be off on held-out samples, ||out - ref|| / ||ref||; "
            "by latency 0.02 unless given; inf: do not look.",
            metavar="E",
        ),
    ] = None
    inputs: InputsOption = None
    svd: Annotated[
        bool, typer.Option("--svd", help="Decompose 1x1 convolutions and dense layers too.")
    ] = False
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Quantise instead of decomposing; --inputs give the ranges."),
    ] = False
    plain: Annotated[
        bool, typer.Option("--plain", help="By the weights alone, whatever the inputs are like.")
    ] = False
    processor: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure on this processor, as named by `coinfer doctor`; repeat it.",
            metavar="NAME",
        ),
    ] = None
    seed: Annotated[
        int, typer.Option(help="Decides which samples judge, and random ones.", min=0)
    ] = 0
    dim: DimOption = None

    @property
    def rule(self) -> RankRule:
        """The rule for ranks; it raises ConfigurationError if there is none such."""
        from coinfer.graph.compressing.rank_rule import RankRule

        return RankRule.parse(self.ranks)

    @property
    def is_measured(self) -> bool:
        """Whether something is measured although no file is written."""
        return self.int8 or self.rule.is_measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The options that say what is written, as a group for `with_groups`."""

    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The compressed ONNX file. Without, rules other than latency only choose ranks.",
            metavar="FILE",
        ),
    ] = None
    picture: Annotated[
        Path | None,
        typer.Option(help="Draw error against time as an SVG.", metavar="FILE"),
    ] = None
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the report as JSON.", metavar="FILE")
    ] = None


@with_groups
def compress(
    model: Annotated[str, typer.Argument(help="An .onnx file, or zoo:NAME.", metavar="MODEL")],
    *,
    how: How,
    files: Files,
    allow_data_in: AllowDataOption = None,
) -> None:
    """Replace layers by smaller ones (Tucker-2, SVD), by default only where that is faster.

    With --int8 layers stay and compute in 8 bits instead. By latency and with --int8 the result is
    never slower than the original on the processors measured, and never further off than
    --max-error on held-out samples.
    """
    check_writable(files.output, files.json_file, files.picture)
    _check(how, files)
    report = _made(resolve_model(model, data_root=allow_data_in), how, files.output)
    print_report(report)
    if files.output is not None:
        say("model", files.output)
    if files.picture is not None:
        from coinfer.planner.compressing.picture import picture_of

        write_text(files.picture, picture_of(report))
        say("picture", files.picture)
    write_result(files.json_file, report.to_json(), "report")


def _check(how: How, files: Files) -> None:
    """Refuse options that would do nothing.

    Raises:
        ConfigurationError: there are some, or the rule is none.
    """
    if files.picture is not None and how.int8:
        raise ConfigurationError("--picture draws the choice of ranks; leave it out with --int8")
    if files.picture is not None and not how.rule.is_measured:
        raise ConfigurationError("--picture draws what ranks by latency measure; leave it out")
    if files.output is not None or how.is_measured:
        return
    idle = {
        "--max-error": how.max_error is not None,
        "--inputs": how.inputs is not None,
        "--plain": how.plain,
        "--processor": bool(how.processor),
        "--seed": how.seed != 0,
    }
    if given := [option for option, is_given in idle.items() if is_given]:
        raise ConfigurationError(
            f"without -o FILE, ranks by {how.rule} are only counted, by the weights alone, and "
            f"{', '.join(given)} would change nothing; give -o, or leave {given[0]} out"
        )


def _made(model: Model, how: How, output: Path | None) -> CompressionReport:
    """Compress, and write the model if that is asked for; else ranks are perhaps only counted."""
    from coinfer.api.compression import choose_ranks
    from coinfer.api.compression import compress as compressed
    from coinfer.cli.progress_bars import telling

    if output is None and not how.is_measured:
        return choose_ranks(model, ranks=how.rule, svd=how.svd, dims=sizes(how.dim))
    with telling("quantising" if how.int8 else "compressing") as tell:
        found = compressed(
            model,
            ranks=how.rule,
            max_error=how.max_error,
            samples=how.inputs,
            svd=how.svd,
            int8=how.int8,
            data_aware=False if how.plain else None,
            processors=how.processor,
            dims=sizes(how.dim),
            seed=how.seed,
            progress=tell,
        )
    if output is not None:
        with writing(output):
            found.save(output)
    return found.report
