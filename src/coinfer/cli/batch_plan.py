"""`coinfer batch-plan`: at which batch size each part of a model runs best in little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from coinfer.cli.console import new_table, out, print_lines
from coinfer.cli.options import AllowDataOption, DimOption, InputsOption, sizes, with_groups
from coinfer.cli.output import check_writable, write_result
from coinfer.cli.progress_bars import profiler_bar
from coinfer.errors import ConfigurationError
from coinfer.hardware.catalogue import default_processors
from coinfer.machine.processor import Processor, named, ordinary
from coinfer.model import Model
from coinfer.planner.model_source import resolve_model
from coinfer.units import format_bytes, format_seconds, parse_bytes, parse_seconds

if TYPE_CHECKING:
    from coinfer.graph.layer_batches.unit_split import UnitSplit
    from coinfer.graph.partition_options import PartitionOptions
    from coinfer.planner.batch_study import BatchStudy, StudiedNetwork

__all__ = ["batch_plan"]

_PADDING = (0, 1, 0, 0)

_PIECES = 8
"""Groups that a model is cut into unless the user says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options that say what is asked, as a group for `with_groups`."""

    memory: Annotated[
        str,
        typer.Option(
            help="Budget for weights and activations: 500MiB, or a share of all weights: 50%.",
            metavar="BYTES|PERCENT",
        ),
    ]
    requests: Annotated[
        int, typer.Option(min=1, help="How many requests of each model wait.", metavar="N")
    ] = 16
    most: Annotated[
        int, typer.Option("--max-batch", min=1, help="The largest batch measured.", metavar="N")
    ] = 16
    pieces: Annotated[
        int | None,
        typer.Option(min=1, help="Cut into at least so many groups; 8 by default.", metavar="N"),
    ] = None
    max_span: Annotated[
        str | None,
        typer.Option(help="Cut so that no group takes longer, e.g. 5ms.", metavar="SECONDS"),
    ] = None
    bandwidth: Annotated[
        str | None,
        typer.Option(
            help="Bytes per second at which weights are loaded and values spilled, e.g. 1GiB; "
            "default: as sessions were made here.",
            metavar="BYTES",
        ),
    ] = None

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes to measure: powers of two, and all requests at once if that is allowed."""
        most = min(self.requests, self.most)
        return tuple(sorted({*(1 << at for at in range(most.bit_length())), most}))

    def options(self) -> PartitionOptions:
        """Return how models are cut, as the partitioner takes it."""
        from coinfer.graph.partition_options import Mode, PartitionOptions

        pieces = self.pieces
        if pieces is None and self.max_span is None:
            pieces = _PIECES
        return PartitionOptions(
            mode=Mode.UNIT,
            minimum_subgraph_size=1,
            pieces=pieces,
            max_span_s=None if self.max_span is None else parse_seconds(self.max_span),
        )

    def budget(self, weights: int) -> int:
        """Return the budget in bytes.

        Raises:
            ConfigurationError: it is neither a size nor a percentage, or not above 0.
        """
        text = self.memory.strip()
        if not text.endswith("%"):
            found = parse_bytes(text)
        else:
            try:
                found = int(weights * float(text[:-1]) / 100)
            except (ValueError, OverflowError) as error:
                raise ConfigurationError(
                    f"--memory {text} is no percentage; write e.g. 50%"
                ) from error
        if found <= 0:
            raise ConfigurationError(f"--memory {text} leaves nothing; give more than 0 bytes")
        return found

    def bytes_per_s(self) -> float | None:
        """Return the bandwidth that is given, if one is."""
        if self.bandwidth is None:
            return None
        given = parse_bytes(self.bandwidth.strip().removesuffix("/s"))
        if given <= 0:
            raise ConfigurationError(
                f"--bandwidth {self.bandwidth} is not above 0 bytes per second"
            )
        return float(given)


@with_groups
def batch_plan(
    models: Annotated[
        list[str], typer.Argument(help="Model files or zoo:NAME.", metavar="MODEL...")
    ],
    *,
    asked: Asked,
    processor: Annotated[
        str | None,
        typer.Option(
            help="Measure on this one, as named by `coinfer doctor`; default: the widest, and for "
            "several models one of each width.",
            metavar="NAME",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the result as JSON.", metavar="FILE")
    ] = None,
    dim: DimOption = None,
    inputs: InputsOption = None,
    allow_data_in: AllowDataOption = None,
) -> None:
    """Choose the batch size of each group of layers so that waiting requests end soonest.

    Nothing is run under the budget: totals are those of the model in docs/batching.md, from times
    that are measured here.
    """
    from coinfer.planner.batch_study import EFFORT, study_batches
    from coinfer.planner.given_samples import read_samples
    from coinfer.planner.samples import measurable
    from coinfer.profiling import Profiler, default_cache

    check_writable(json_file)
    asked.budget(1 << 30)  # what is wrong with options is said before anything is measured
    bandwidth, options = asked.bytes_per_s(), asked.options()
    loaded = _loaded(models, allow_data_in)
    if inputs is not None and len(loaded) > 1:
        raise ConfigurationError("--inputs are those of one model; study it alone")
    given = {} if inputs is None else {n: read_samples(m, inputs) for n, m in loaded.items()}
    processors = _processors(processor, several=len(loaded) > 1)
    with profiler_bar() as bar:
        profiler = Profiler(effort=EFFORT, cache=default_cache(), progress=bar)
        found = measurable(loaded, processors, sizes(dim), profiler, given)
        study = study_batches(
            found,
            processors,
            options,
            profiler,
            requests=asked.requests,
            batches=asked.batches,
            budget=asked.budget,
            bytes_per_s=bandwidth,
        )
    report = _report(study, asked)
    for each in report["models"]:
        _print(each)
    if report["split"] is not None:
        _print_split(report)
    print_lines(*(f"warning: {warning}" for warning in found.warnings))
    write_result(json_file, report, "batch plan")


def _loaded(sources: Sequence[str], data_root: Path | None) -> dict[str, Model]:
    found: dict[str, Model] = {}
    for source in sources:
        model = resolve_model(source, data_root=data_root)
        if model.name in found:
            raise ConfigurationError(f"two models are named {model.name!r}; rename one")
        found[model.name] = model
    return found


def _processors(name: str | None, *, several: bool) -> list[Processor]:
    """Return the processor that is named, the widest, or for several models one of each width."""
    found = list(ordinary(default_processors()))
    if name is not None:
        return [named(name, found)]
    by_width: dict[int, Processor] = {}
    for each in found:
        if each.backend == found[0].backend:
            by_width.setdefault(len(each.units), each)
    widest = by_width[max(by_width)]
    return list(by_width.values()) if several else [widest]


def _report(study: BatchStudy, asked: Asked) -> dict[str, Any]:
    """Gather everything that is shown, as plain values."""
    split = study.split
    return {
        "requests": asked.requests,
        "memory_bytes": study.budget_bytes,
        "weight_bytes": study.weight_bytes,
        "processors": {str(width): name for width, name in study.processors.items()},
        "models": [_model_report(each, study) for each in study.networks],
        "split": None if split is None else _split_report(split),
    }


def _model_report(network: StudiedNetwork, study: BatchStudy) -> dict[str, Any]:
    path, measured = network.path, network.measured
    return {
        "model": network.name,
        "processor": study.processors[max(study.processors)],
        "requests": network.problem.requests,
        "memory_bytes": network.problem.memory.bytes,
        "load_bytes_per_s": network.loading.bytes_per_s,
        "load_s": network.loading.fixed_s,
        "copy_bytes_per_s": network.problem.memory.copy_bytes_per_s,
        "groups": [
            {
                "name": group.name,
                "operators": count,
                "weight_bytes": group.weight_bytes,
                "input_bytes": group.input_bytes,
                "output_bytes": group.output_bytes,
                "inner_bytes": group.inner_bytes,
                "seconds": {str(batch): group.seconds[batch] for batch in network.problem.batches},
                "batch": chosen.batch,
                "runs_with": [chosen.segment.first, chosen.segment.last],
                "next_batch": chosen.other_batch,
                "next_costs_s": None if chosen.other_batch is None else chosen.other_s,
            }
            for group, count, chosen in zip(
                measured.groups, measured.operators, path.groups, strict=True
            )
        ],
        "seconds": path.seconds,
        "cost": path.cost._asdict(),
        "whole_network_s": {str(batch): seconds for batch, seconds in path.fixed_s.items()},
        "best_fixed_batch": path.best_fixed,
        "group_by_group_s": {str(batch): seconds for batch, seconds in path.layered_s.items()},
        "best_group_by_group_batch": path.best_layered,
        "plans": network.plans,
        "exhaustive_s": network.exhaustive_s,
    }


def _split_report(split: UnitSplit) -> dict[str, Any]:
    return {
        "side_by_side": {name: asdict(share) for name, share in split.shares.items()},
        "one_by_one": {name: asdict(share) for name, share in split.sequential.items()},
        "side_by_side_s": split.parallel_s if split.shares else None,
        "one_by_one_s": split.sequential_s,
        "chosen": "side by side" if split.is_parallel else "one by one",
    }


def _print(report: dict[str, Any]) -> None:
    weights = sum(group["weight_bytes"] for group in report["groups"])
    print_lines(
        f"{report['model']}: {report['requests']} requests on {report['processor']}, "
        f"{format_bytes(report['memory_bytes'])} of memory, {format_bytes(weights)} of weights"
    )
    out().print(_table(report))
    fixed_ms = report["load_s"] * 1e3
    print_lines(
        f"loading: {format_bytes(report['load_bytes_per_s'])}/s and {fixed_ms:.2g} ms for each "
        f"group; stacking anew: {format_bytes(report['copy_bytes_per_s'])}/s"
    )
    print_lines(*(f"{label:27}{text}" for label, text in _totals(report)))


def _table(report: dict[str, Any]) -> Table:
    batches = list(report["whole_network_s"])
    figures = ("weights", "in", "out", *(f"ms at {b}" if b == "1" else b for b in batches))
    chosen = ("segment", "batch", "else")
    table = new_table("group from", figures=(*figures, *chosen), padding=_PADDING)
    segments = list(dict.fromkeys(tuple(group["runs_with"]) for group in report["groups"]))
    for group in report["groups"]:
        table.add_row(
            group["name"].partition(" .. ")[0],
            *(format_bytes(group[f"{kind}_bytes"]) for kind in ("weight", "input", "output")),
            *(f"{group['seconds'][batch] * 1e3:.3g}" for batch in batches),
            str(1 + segments.index(tuple(group["runs_with"]))),
            str(group["batch"]),
            _otherwise(group),
        )
    return table


def _otherwise(group: dict[str, Any]) -> str:
    """Say what the next best batch of a group costs in all."""
    if group["next_batch"] is None:
        return "-"
    return f"{group['next_batch']}: +{format_seconds(group['next_costs_s'])}"


def _totals(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    own, fixed = report["seconds"], report["whole_network_s"]
    layered, layer_batch = report["group_by_group_s"], str(report["best_group_by_group_batch"])
    parts = {name.removesuffix("_s"): s for name, s in report["cost"].items()}
    spent = ", ".join(f"{name} {format_seconds(s)}" for name, s in parts.items() if s)
    yield "chosen batches", f"{format_seconds(own)} ({spent})"
    best = str(report["best_fixed_batch"])
    names = {best: f"whole, best batch {best}"}
    for batch in (next(iter(fixed)), list(fixed)[-1]):
        names.setdefault(batch, f"whole, batch {batch}")
    rows = [(name, fixed[batch]) for batch, name in names.items()]
    rows.append((f"group by group, batch {layer_batch}", layered[layer_batch]))
    for name, seconds in rows:
        yield name, f"{format_seconds(seconds)}, {seconds / own:.2f} times as long"
    if report["exhaustive_s"] is None:
        yield "exhaustive search", f"not done: there are {report['plans']:,} plans"
    else:
        found = format_seconds(report["exhaustive_s"])
        yield "exhaustive search", f"{found}, the best of {report['plans']:,} plans"


def _print_split(report: dict[str, Any]) -> None:
    split = report["split"]
    table = new_table("network", figures=("units", "memory", "ends after"), padding=_PADDING)
    for name, share in split["side_by_side"].items():
        ends = format_seconds(share["seconds"])
        table.add_row(name, str(share["units"]), format_bytes(share["bytes"]), ends)
    if split["side_by_side"]:
        out().print(table)
        print_lines(f"side by side: {format_seconds(split['side_by_side_s'])}")
    else:
        print_lines("side by side: not possible, units or memory do not suffice for all at once")
    print_lines(
        f"one by one: {format_seconds(split['one_by_one_s'])}", f"chosen: {split['chosen']}"
    )
