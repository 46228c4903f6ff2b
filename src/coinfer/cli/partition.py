"""`coinfer partition`: where a model would be cut, and which processor runs which part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from coinfer.backends.base import Backend, Tensors
from coinfer.backends.registry import find_backends
from coinfer.cli.console import new_table, out, print_lines
from coinfer.cli.options import AllowDataOption, DimOption, InputsOption, sizes, with_groups
from coinfer.cli.output import check_writable, say, write_result, write_text
from coinfer.cli.progress_bars import profiler_bar
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.hardware.catalogue import default_processors
from coinfer.machine.processor import Processor, ordinary
from coinfer.machine.span import Fork
from coinfer.model import Model
from coinfer.plan.index_ranges import span_text
from coinfer.planner.model_source import resolve_model
from coinfer.units import format_bytes, parse_seconds

if TYPE_CHECKING:
    from coinfer.graph.operators import Operators
    from coinfer.graph.partition import Partition
    from coinfer.graph.partition_options import PartitionOptions
    from coinfer.profiling.support import Support

__all__ = ["partition"]

_IMAGINED = "imagined"
_MOST_TYPES = 4
_MOST_FORKS = 12
_PADDING = (0, 1, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """The options that say where to cut, as a group for `with_groups`."""

    mode: Annotated[
        str,
        typer.Option(
            help="Which spans there are.", metavar="whole|fallback_per_processor|unit|merged"
        ),
    ] = "merged"
    minimum_subgraph_size: Annotated[
        int,
        typer.Option(
            min=1, help="Leave a processor out for fewer operators in a row.", metavar="N"
        ),
    ] = 7
    pieces: Annotated[
        int | None, typer.Option(min=1, help="Cut into at least so many units.", metavar="N")
    ] = None
    max_span: Annotated[
        str | None,
        typer.Option(
            help="Cut so that no span takes longer, e.g. 5ms; measures.", metavar="SECONDS"
        ),
    ] = None
    branches: Annotated[
        bool,
        typer.Option("--branches", help="Cut around branches that can run at the same time."),
    ] = False

    def options(self) -> PartitionOptions:
        """Return them as the partitioner takes them.

        Raises:
            ConfigurationError: there is no such mode, or the longest span is no duration.
        """
        from coinfer.graph.partition_options import Mode, PartitionOptions

        if self.mode not in list(Mode):
            raise UnknownNameError.of("mode", self.mode, [str(each) for each in Mode])
        return PartitionOptions(
            mode=Mode(self.mode),
            minimum_subgraph_size=self.minimum_subgraph_size,
            pieces=self.pieces,
            max_span_s=None if self.max_span is None else parse_seconds(self.max_span),
            branches=self.branches,
        )


@with_groups
def partition(
    model: Annotated[str, typer.Argument(help="An .onnx file, or zoo:NAME.", metavar="MODEL")],
    *,
    processors: Annotated[
        Path | None,
        typer.Option(
            help="A scenario, a machine, or a file with `processors`; default: this machine's.",
            metavar="FILE",
        ),
    ] = None,
    cuts: Cuts,
    svg: Annotated[
        Path | None, typer.Option(help="Draw the graph, coloured by processor.", metavar="FILE")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the partition as JSON.", metavar="FILE")
    ] = None,
    dim: DimOption = None,
    inputs: InputsOption = None,
    allow_data_in: AllowDataOption = None,
) -> None:
    """Show what each processor supports of a model, its units, and the bytes between them."""
    from coinfer.graph.drawing import draw

    check_writable(svg, json_file)
    options = cuts.options()
    loaded = resolve_model(model, data_root=allow_data_in)
    chosen, report = _chosen(loaded, _processors(processors), options, sizes(dim), inputs)
    _print(report)
    if svg is not None:
        write_text(svg, draw(chosen, loaded.name))
        say("drawing", svg)
    write_result(json_file, report, "partition")


def _chosen(
    model: Model,
    processors: Sequence[Processor],
    options: PartitionOptions,
    dims: Mapping[str, int],
    inputs: Path | None,
) -> tuple[Partition, dict[str, Any]]:
    """Choose the partition, and gather everything that is shown of it."""
    from coinfer.graph.operators import Operators
    from coinfer.graph.partition import choose_partition
    from coinfer.graph.shares import costs_by_operator, operator_shares
    from coinfer.planner.given_samples import read_samples
    from coinfer.planner.samples import guess_warning, samples_of
    from coinfer.profiling import Profiler, default_cache
    from coinfer.profiling.support import find_support

    # A processor of a described machine has no backend that can be asked.
    real = [processor for processor in processors if processor.backend != _IMAGINED]
    backends = find_backends(real, {})
    operators = Operators.of(model.graph)
    support = find_support(model, processors, backends, operators=operators)
    given = None if inputs is None else read_samples(model, inputs)
    samples = samples_of(model, given, dims, real, Profiler(cache=default_cache()))
    warning = guess_warning(model.name, samples.guessed)
    print_lines(*([] if warning is None else [f"warning: {warning}"]))
    shares = operator_shares(
        operators, costs_by_operator(model, model.input_check.sizes_of(samples.feeds[0]))
    )
    seconds = None
    if options.max_span_s is not None:
        seconds = _seconds(model, samples.feeds, processors, backends, support, shares)
    partition = choose_partition(
        model, support.operators, options, seconds=seconds, operators=operators
    )
    return partition, _report(model, processors, support, partition, shares)


def _processors(file: Path | None) -> tuple[Processor, ...]:
    from coinfer.planner.processor_file import load_processors

    return ordinary(default_processors() if file is None else load_processors(file))


def _seconds(
    model: Model,
    feeds: Sequence[Tensors],
    processors: Sequence[Processor],
    backends: Mapping[str, Backend],
    support: Support,
    shares: Sequence[float],
) -> dict[str, tuple[float, ...]]:
    """Expected seconds of each operator, from the measured time of the whole model.

    A processor that does not run all of the model counts as fast as the slowest that does.
    """
    from coinfer.profiling import default_cache, profile_models

    able = [
        each
        for each in processors
        if len(support.operators[each.name]) == len(shares) and each.backend in backends
    ]
    with profiler_bar() as progress:
        profile = profile_models(
            {model.name: model},
            able,
            cache=default_cache(),
            backends=backends,
            feeds={model.name: feeds[:1]},
            progress=progress,
            skipped=lambda _: None,
        )
    whole = {key.processor: entry.mean_s for key, entry in profile}
    if not whole:
        raise ConfigurationError(
            "--max-span needs a processor here that runs all of the model, to measure it; leave "
            "it out or use --pieces"
        )
    slowest = max(whole.values())
    return {
        each.name: tuple(share * whole.get(each.name, slowest) for share in shares)
        for each in processors
    }


def _report(
    model: Model,
    processors: Sequence[Processor],
    support: Support,
    partition: Partition,
    shares: Sequence[float],
) -> dict[str, Any]:
    """Gather everything that is shown, as plain values."""
    operators = partition.operators
    return {
        "model": model.name,
        "mode": str(partition.mode),
        "operators": len(operators),
        "processors": [
            {
                "name": each.name,
                "backend": each.backend,
                "supported": len(support.operators[each.name]),
                "found_out": str(support.sources[each.name]),
                "unsupported_types": _types(
                    operators, set(range(len(operators))) - support.operators[each.name]
                ),
                "problem": support.problems.get(each.name),
            }
            for each in processors
        ],
        "units": _units(partition, shares),
        "spans": [
            {"first": span.first, "last": span.last, "processors": sorted(names)}
            for span, names in sorted(partition.spans.items())
        ],
        "forks": [fork._asdict() for fork in partition.forks],
    }


def _units(partition: Partition, shares: Sequence[float]) -> list[dict[str, Any]]:
    operators = partition.operators
    rows = zip(partition.units, partition.dependencies, partition.borders, strict=True)
    return [
        {
            "unit": at,
            "operators": [operators[index].name for index in unit.operators],
            "types": _types(operators, unit.operators),
            "processors": sorted(unit.processors),
            "reads_from": sorted(dependencies),
            "border_values": list(border.values),
            "border_bytes": border.bytes,
            "cost_share": sum(shares[index] for index in unit.operators),
        }
        for at, (unit, dependencies, border) in enumerate(rows)
    ]


def _types(operators: Operators, indices: Any) -> dict[str, int]:
    return dict(Counter(operators[index].op_type for index in sorted(indices)).most_common())


def _print(report: dict[str, Any]) -> None:
    units, spans = len(report["units"]), len(report["spans"])
    print_lines(
        f"{report['model']}: {report['operators']} operators in {units} unit"
        f"{'' if units == 1 else 's'}, mode {report['mode']}, {spans} span"
        f"{'' if spans == 1 else 's'} that may run"
    )
    out().print(_support_table(report))
    out().print(_unit_table(report))
    if report["forks"]:
        print_lines(_fork_line(report["forks"]))
    for each in report["processors"]:
        if each["problem"] is not None:
            print_lines(f"{each['name']}: {each['problem']}")


def _support_table(report: dict[str, Any]) -> Table:
    headers = ("processor", "backend", "supports", "found out", "does not run")
    table = new_table(*headers, padding=_PADDING)
    for each in report["processors"]:
        table.add_row(
            each["name"],
            each["backend"],
            f"{each['supported']} of {report['operators']}",
            each["found_out"],
            _listed(each["unsupported_types"]) or "-",
        )
    return table


def _unit_table(report: dict[str, Any]) -> Table:
    names = ("unit", "operators", "types", "processors", "reads from")
    table = new_table(*names, "values in", "bytes in", "cost", padding=_PADDING)
    for column in table.columns:
        if column.header not in ("types", "processors", "reads from"):
            column.justify = "right"
    for each in report["units"]:
        size = each["border_bytes"]
        table.add_row(
            str(each["unit"]),
            str(len(each["operators"])),
            _listed(each["types"]),
            ", ".join(each["processors"]),
            ", ".join(map(str, each["reads_from"])) or "inputs",
            str(len(each["border_values"])),
            "?" if size is None else format_bytes(size),
            f"{each['cost_share']:.1%}",
        )
    return table


def _fork_line(forks: Sequence[Mapping[str, int]]) -> str:
    shown = ", ".join(
        f"{span_text(fork.left)} beside {span_text(fork.right)}"
        for fork in (Fork(**each) for each in forks[:_MOST_FORKS])
    )
    more = f", {len(forks) - _MOST_FORKS} more" if len(forks) > _MOST_FORKS else ""
    return f"units that may run at the same time: {shown}{more}"


def _listed(types: Mapping[str, int]) -> str:
    shown = [f"{name} {count}" for name, count in list(types.items())[:_MOST_TYPES]]
    more = len(types) - len(shown)
    return ", ".join(shown) + (f", {more} more" if more else "")
