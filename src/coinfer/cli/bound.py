"""`coinfer bound`: the best that any scheduler could reach for a scenario."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from coinfer.cli.console import new_table, out
from coinfer.cli.options import (
    AllowDataOption,
    Changes,
    DimOption,
    JsonOption,
    MachineOption,
    PlanOption,
    ScenarioArgument,
)
from coinfer.cli.output import check_writable, write_result
from coinfer.cli.preparing import prepared
from coinfer.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coinfer.experiments.certificate import Certificate
    from coinfer.workload.arrivals import Offline

__all__ = ["bound"]


def bound(
    scenario: ScenarioArgument,
    machine: MachineOption = None,
    plan: PlanOption = None,
    dim: DimOption = None,
    allow_data_in: AllowDataOption = None,
    json: JsonOption = None,
) -> None:
    """Show the best throughput that any scheduler could reach, and how.

    The optimum of a linear program over the offered mix: how much of its time each processor
    spends on each model, and what its time is worth.
    """
    from coinfer.experiments.certificate import certify
    from coinfer.experiments.deadline_bound import deadline_bound
    from coinfer.experiments.least_loading import least_loading

    check_writable(json)
    changes = Changes(dim=dim, allow_data_in=allow_data_in)
    wanted = changes.applied_to(scenario)
    ready = prepared(wanted, plan, machine=machine, changes=changes, needs_times=True)
    found = ready.plan.machine
    certificate = certify(
        ready.as_run,
        found,
        ready.plan.works,
        ready.plan.together,
        ready.plan.cheaper,
        ready.plan.fused_models,
    )
    least_load_s = least_loading(ready.plan, ready.as_run)
    warnings = [*ready.plan.warnings, *certificate.warnings()]
    console = out()
    console.print(f"{wanted.name} on {found.name}")
    console.print(_spread(certificate))
    for line in _lines(certificate, wanted.offline):
        console.print(line)
    in_time = deadline_bound(ready.as_run, ready.plan)
    if in_time is not None:
        console.print(f"deadlines: no schedule can meet more than {in_time:.1%} of them")
    if least_load_s is not None:
        console.print(_loading_line(least_load_s))
    for warning in warnings:
        console.print(f"warning: {warning}")
    found_json = {
        **certificate.to_json(),
        "least_load_s": least_load_s,
        "in_time": in_time,
    }
    facts = {"scenario": wanted.name, "machine": found.name}
    write_result(json, {**facts, **found_json, "warnings": warnings})


def _loading_line(least_load_s: float) -> str:
    if not least_load_s:
        return "within the memory: no time is needed for loading, as far as is known"
    return (
        f"within the memory: loading takes at least {format_seconds(least_load_s)} a request, so "
        f"at most {1 / least_load_s:.3f} inferences/s"
    )


def _spread(certificate: Certificate) -> Table:
    """How each processor's time is spread over the models."""
    limit = certificate.bound
    table = new_table("processor")
    for model in limit.per_model_per_s:
        table.add_column(model, justify="right", overflow="fold")
    table.add_column("busy", justify="right", no_wrap=True)
    table.add_column("worth", justify="right", no_wrap=True)
    for name, row in limit.shares.items():
        cells = [f"{row[m]:.1%}" if m in row else "-" for m in limit.per_model_per_s]
        worth = f"{limit.prices[name]:.2f}/s"
        table.add_row(name, *cells, f"{sum(row.values()):.1%}", worth)
    rates = [f"{rate:.3f}/s" for rate in limit.per_model_per_s.values()]
    table.add_section()
    table.add_row("in all", *rates, "", f"{limit.throughput_per_s:.3f}/s")
    return table


def _lines(certificate: Certificate, offline: Offline | None) -> Iterator[str]:
    """The figures beside the table, one per line."""
    limit = certificate.bound
    mix = "offered mix" if certificate.mix_is_known else "equal mix (the policy decides the mix)"
    yield f"bound: {limit.throughput_per_s:.3f} inferences/s for the {mix}"
    if certificate.kept is not None:
        names = ", ".join(certificate.one_model)
        verb = "keeps one model" if len(certificate.one_model) == 1 else "keep one model each"
        yield f"  if {names} {verb}: {certificate.kept.throughput_per_s:.3f}/s"
    if certificate.sustainable_factor is not None:
        yield f"rates can be multiplied by at most {certificate.sustainable_factor:.4f}"
    if offline is not None:
        total = sum(offline.counts.values())
        least_s = total / limit.throughput_per_s
        yield f"{total:,} requests take at least {least_s:.6g} s by the bound"
    spread = certificate.makespan
    if spread is not None:
        kind = "optimal" if spread.proven else f"at least {spread.lower_bound_s:.6g} s,"
        yield f"  as whole executions: {kind} {spread.seconds:.6g} s"
