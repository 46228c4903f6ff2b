"""`coinfer fuse`: write models of one architecture as one, and show what was merged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from coinfer.cli.console import new_table, out, print_lines
from coinfer.cli.options import AllowDataOption
from coinfer.cli.output import check_writable, say, write_result, writing
from coinfer.planner.model_source import resolve_model
from coinfer.units import format_bytes

if TYPE_CHECKING:
    from coinfer.graph.fusing.fused_model import FusedModel

__all__ = ["fuse"]


def fuse(
    models: Annotated[
        list[str], typer.Argument(help="Two or more .onnx files, or zoo:NAME.", metavar="MODEL...")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Where to write the model.", metavar="FILE")
    ],
    same_input: Annotated[
        list[str] | None,
        typer.Option(help="An input that all get the same value of; repeat it.", metavar="NAME"),
    ] = None,
    operators: Annotated[
        bool, typer.Option("--operators", help="List every operator, not only the types.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the report as JSON.", metavar="FILE")
    ] = None,
    allow_data_in: AllowDataOption = None,
) -> None:
    """Fuse models of one architecture into one ONNX file, each with inputs of its own."""
    from coinfer.graph.fusing.fused_model import fuse_models

    check_writable(output, json_file)
    loaded = [resolve_model(model, data_root=allow_data_in) for model in models]
    fused = fuse_models(loaded, name=output.stem, same_inputs=same_input or ())
    with writing(output):
        fused.save(output)
    report = _report(fused)
    _print(report, operators=operators)
    size = format_bytes(output.stat().st_size)
    say("fused model", output, f"{len(loaded)} models, {size}")
    write_result(json_file, report, "report")


def _report(fused: FusedModel) -> dict[str, Any]:
    """Gather everything that is shown, as plain values."""
    return {
        "models": [
            {
                "name": member.name,
                "inputs": dict(member.inputs),
                "outputs": dict(member.outputs),
                "operators_apart": apart,
            }
            for member, apart in zip(fused.members, fused.apart, strict=True)
        ],
        "difference": fused.difference,
        "operator_types": [
            {
                "op_type": op_type,
                **{str(form): count for form, count in counts.items()},
                "reasons": sorted(
                    {d.reason for d in fused.decisions if d.op_type == op_type and d.reason}
                ),
            }
            for op_type, counts in fused.counts().items()
        ],
        "operators": [
            {
                "name": decision.name,
                "op_type": decision.op_type,
                "form": str(decision.form),
                "layout": str(decision.layout),
                "reason": decision.reason,
            }
            for decision in fused.decisions
        ],
    }


_FORMS = ("grouped", "once", "branches", "apart")


def _print(report: dict[str, Any], *, operators: bool) -> None:
    total: Counter[str] = Counter(each["form"] for each in report["operators"])
    count = sum(total.values())
    side = total["branches"]
    beside = f", {side} side by side, which costs less" if side else ""
    names = ", ".join(model["name"] for model in report["models"])
    print_lines(f"{names}: {total['grouped']} of {count} operators merged{beside}")
    out().print(_type_table(report))
    if operators:
        out().print(_operator_table(report))
    if report["difference"]:
        own = ", ".join(f"{m['operators_apart']} of {m['name']}" for m in report["models"])
        print_lines(f"warning: {report['difference']}; operators that run apart: {own}")


def _type_table(report: dict[str, Any]) -> Table:
    table = new_table("operator", *_FORMS, "why apart")
    for column in table.columns[1:5]:
        column.justify = "right"
    for row in report["operator_types"]:
        cells = (str(row.get(form, "")) for form in _FORMS)
        table.add_row(row["op_type"], *cells, "; ".join(row["reasons"]))
    return table


def _operator_table(report: dict[str, Any]) -> Table:
    table = new_table("name", "operator", "form", "layout", "why apart")
    for row in report["operators"]:
        layout = row["layout"] if row["form"] == "grouped" else ""
        table.add_row(row["name"], row["op_type"], row["form"], layout, row["reason"])
    return table
