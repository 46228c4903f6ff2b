"""`coinfer inspect`: what a model consists of and what it costs. Measures nothing."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from coinfer.cli.console import out, print_lines
from coinfer.cli.options import AllowDataOption, DimOption, sizes
from coinfer.cli.output import write_json
from coinfer.model import Model, TensorSpec
from coinfer.planner.model_source import resolve_model
from coinfer.units import format_bytes, format_count

if TYPE_CHECKING:
    from coinfer.graph.cost import OperatorCost
    from coinfer.graph.count_range import CountRange

__all__ = ["inspect"]

_STDOUT = "-"
_UNKNOWN = "?"


def inspect(
    model: Annotated[str, typer.Argument(help="An .onnx file, or zoo:NAME.", metavar="MODEL")],
    operators: Annotated[
        bool, typer.Option("--operators", help="List every operator, not only the types.")
    ] = False,
    batch: Annotated[int, typer.Option(help="Batch size that the costs are for.", min=1)] = 1,
    dim: DimOption = None,
    json_file: Annotated[
        str | None,
        typer.Option("--json", help="Write the figures as JSON; - prints them.", metavar="FILE|-"),
    ] = None,
    allow_data_in: AllowDataOption = None,
) -> None:
    """Show inputs, outputs, fingerprint, parameters, MACs and bytes of a model."""
    from coinfer.graph.cost import operator_costs

    loaded = resolve_model(model, data_root=allow_data_in)
    given = sizes(dim)
    costs = operator_costs(loaded.graph, batch=batch, dims=given)
    report = _report(loaded, costs, batch)
    report["unset_dims"] = [name for name in loaded.open_dims if name not in given]
    if json_file == _STDOUT:
        print_lines(json.dumps(report, indent=2))
        return
    _print(out(), report, operators=operators)
    if json_file is not None:
        write_json(Path(json_file), report)


def _report(model: Model, costs: Sequence[OperatorCost], batch: int) -> dict[str, Any]:
    """Gather everything that is shown, as plain values."""
    from coinfer.graph.cost import total
    from coinfer.graph.weights import stored_weights

    graph = model.graph
    sums = total(costs, stored_weights(graph))
    return {
        "name": model.name,
        "source": None if model.source is None else str(model.source),
        "inputs": [
            _spec(spec) | ({"optional": True} if spec.name in model.defaults else {})
            for spec in model.inputs
        ],
        "outputs": [_spec(spec) for spec in model.outputs],
        "opsets": {domain or "ai.onnx": version for domain, version in graph.opset_imports.items()},
        "ir_version": graph.ir_version,
        "producer": " ".join(filter(None, (graph.producer_name, graph.producer_version))) or None,
        "fingerprint": asdict(model.fingerprint),
        "batch": batch,
        "parameters": sums.parameters,
        "trainable_parameters": sums.trainable_parameters,
        **_macs(sums.mac_range),
        "unknown_operators": sums.unknown_operators,
        "weight_bytes": sums.weight_bytes,
        "peak_activation_bytes_estimate": sums.peak_activation_bytes_estimate,
        "operator_types": _by_type(costs, sums.known_macs),
        "operators": [_row(cost.name, cost.op_type, [cost], sums.known_macs) for cost in costs],
    }


def _spec(spec: TensorSpec) -> dict[str, Any]:
    shape = list(spec.shape) if spec.rank_known else None
    return {"name": spec.name, "dtype": spec.dtype_name, "shape": shape}


def _macs(count: CountRange) -> dict[str, int | None]:
    return {"macs": count.exact, "known_macs": count.least, "most_macs": count.most}


def _by_type(costs: Sequence[OperatorCost], macs: int) -> list[dict[str, Any]]:
    groups: dict[str, list[OperatorCost]] = defaultdict(list)
    for cost in costs:
        groups[cost.op_type].append(cost)
    rows = [_row(None, op_type, members, macs) for op_type, members in groups.items()]
    return sorted(rows, key=lambda row: (-row["macs_share"], -row["count"], row["op_type"]))


def _row(
    name: str | None, op_type: str, costs: Sequence[OperatorCost], macs: int
) -> dict[str, Any]:
    from coinfer.graph.cost import known_sum
    from coinfer.graph.count_range import CountRange

    count = CountRange.total(cost.mac_range for cost in costs)
    return {
        **({"count": len(costs)} if name is None else {"name": name}),
        "op_type": op_type,
        **_macs(count),
        "macs_share": count.least / macs if macs else 0.0,
        "parameters": sum(cost.parameters for cost in costs),
        "weight_bytes": known_sum(cost.weight_bytes for cost in costs),
        "input_bytes": known_sum(cost.input_bytes for cost in costs),
        "output_bytes": known_sum(cost.output_bytes for cost in costs),
    }


def _print(console: Console, report: dict[str, Any], *, operators: bool) -> None:
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for label, value in _facts(report):
        facts.add_row(label, value)
    console.print(facts)
    console.print()
    console.print(_table(report["operator_types"], "count", "Operators by type"))
    if operators:
        console.print()
        console.print(_table(report["operators"], "name", "Operators in the order of the graph"))


def _facts(report: dict[str, Any]) -> Iterable[tuple[str, str]]:
    yield "model", report["name"] + (f"  ({report['source']})" if report["source"] else "")
    for role in ("inputs", "outputs"):
        for index, spec in enumerate(report[role]):
            shape = _shape_text(spec["shape"])
            note = " (optional)" if spec.get("optional") else ""
            yield role if index == 0 else "", f"{spec['name']}: {spec['dtype']}{shape}{note}"
    opsets = ", ".join(f"{domain} {version}" for domain, version in report["opsets"].items())
    yield "opset", f"{opsets}  (ONNX IR version {report['ir_version']})"
    yield "producer", report["producer"] or "not named"
    fingerprint = report["fingerprint"]
    yield "fingerprint", f"{fingerprint['structure']} structure"
    yield "", f"{fingerprint['weights']} weights"
    yield (
        "parameters",
        f"{report['trainable_parameters']:,} trainable, {report['parameters']:,} stored",
    )
    yield f"MACs (batch {report['batch']})", _macs_text(report)
    weights, peak = report["weight_bytes"], report["peak_activation_bytes_estimate"]
    yield (
        "memory",
        f"{_UNKNOWN if weights is None else format_bytes(weights)} weights, "
        f"{_UNKNOWN if peak is None else format_bytes(peak)} activations at the peak (estimate)",
    )


def _shape_text(shape: list[int | str | None] | None) -> str:
    if shape is None:
        return "[...]"
    return "[" + ",".join(_UNKNOWN if dim is None else str(dim) for dim in shape) + "]"


def _macs_text(report: dict[str, Any]) -> str:
    least, most = report["known_macs"], report["most_macs"]
    if most is not None:
        return f"{least:,}" if least == most else f"{least:,} to {most:,}, as the inputs decide"
    unknown = report["unknown_operators"]
    sizes = " ".join(f"--dim {name}=SIZE" for name in report["unset_dims"])
    return (
        f"at least {report['known_macs']:,}; unknown for {len(unknown)} operators, first "
        f"{unknown[0]!r}" + (f"; give sizes: {sizes}" if sizes else "")
    )


def _table(rows: Sequence[dict[str, Any]], key: str, title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    if key == "name":
        table.add_column("name", overflow="fold")
    table.add_column("type", no_wrap=True)
    figures = ("MACs", "share", "params", "weights", "in", "out")
    for heading in ("count", *figures) if key == "count" else figures:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        first = [row["op_type"], str(row[key])] if key == "count" else [row[key], row["op_type"]]
        table.add_row(*first, *_cells(row))
    return table


def _cells(row: dict[str, Any]) -> list[str]:
    sizes = (row["weight_bytes"], row["input_bytes"], row["output_bytes"])
    return [
        _macs_cell(row["known_macs"], row["most_macs"]),
        f"{row['macs_share']:.1%}",
        format_count(row["parameters"]),
        *(_UNKNOWN if size is None else format_bytes(size) for size in sizes),
    ]


def _macs_cell(least: int, most: int | None) -> str:
    if most is None:
        return f"at least {format_count(least)}" if least else _UNKNOWN
    if least == most:
        return format_count(least)
    return f"{format_count(least)} to {format_count(most)}"
