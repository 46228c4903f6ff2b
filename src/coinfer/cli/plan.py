"""`coinfer plan`: decide what runs where, show it with the reasons, and keep it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coinfer.cli.console import out
from coinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from coinfer.machine.profile import Measurement
    from coinfer.machine.span import Span
    from coinfer.model import Model
    from coinfer.plan import Plan
    from coinfer.planner.make_plan import Planned
    from coinfer.profiling import Profiler

__all__ = ["plan"]

_SCENARIO = (".yaml", ".yml")
_LIBRARY = "lib:"


def plan(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="One scenario (.yaml or lib:NAME), or model files and zoo:NAME; with --diff, the "
            "folders of two plans.",
            metavar="SCENARIO|MODEL...",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="Keep the plan in this folder.", metavar="FOLDER"),
    ] = None,
    why: Annotated[
        bool, typer.Option("--why", help="Show what else was measured and what it lost by.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Show what differs between two saved plans.")
    ] = False,
    policy: Annotated[
        str | None, typer.Option(help="Policy instead of the scenario's.", metavar="NAME")
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            help="Stop measuring after so long and estimate the rest, e.g. 60s; default: measure "
            "everything.",
            metavar="SECONDS",
        ),
    ] = None,
) -> None:
    """Decide what runs where, by measuring; show it, and keep it for `--plan`.

    A kept plan is a folder that can be read, compared and edited. `coinfer run SCENARIO --plan
    FOLDER` starts from it without measuring anything.
    """
    from coinfer.plan.plan_destination import check_can_save
    from coinfer.plan.plan_folder import save_plan
    from coinfer.units import parse_seconds

    if diff:
        given = {"-o": output, "--why": why, "--policy": policy, "--measure": measure}
        _show_difference(sources, [option for option, value in given.items() if value])
        return
    budget_s = math.inf if measure is None else parse_seconds(measure)
    if output is not None:
        check_can_save(output)
    planned = _planned(sources, policy, budget_s)
    console = out()
    console.print(_table(planned.plan))
    for line in _reasons(planned.plan) if why else ():
        console.print(line, soft_wrap=True)
    for warning in planned.plan.warnings:
        console.print(f"warning: {warning}", soft_wrap=True)
    if output is not None:
        save_plan(planned.plan, Path(output))
        console.print(f"plan: {output}", soft_wrap=True)


def _planned(sources: list[str], policy: str | None, budget_s: float) -> Planned:
    from coinfer.cli.progress_bars import profiler_bar
    from coinfer.planner.make_plan import Planned
    from coinfer.planner.prepare import prepare
    from coinfer.profiling import Profiler, default_cache
    from coinfer.profiling.budget import Budget
    from coinfer.workload.scenario_file import load_scenario

    scenarios = [s for s in sources if s.endswith(_SCENARIO) or s.startswith(_LIBRARY)]
    if scenarios and len(sources) > 1:
        raise ConfigurationError(
            f"{scenarios[0]} is a scenario, and a plan is for one scenario or for models; name it "
            "alone"
        )
    cache, budget = default_cache(), Budget(budget_s)
    with profiler_bar() as progress:
        if not scenarios:
            profiler = Profiler(cache=cache, progress=progress, budget=budget)
            return _of_models(sources, policy, profiler)
        scenario = load_scenario(scenarios[0]).with_options(policy=policy)
        ready = prepare(scenario, cache=cache, progress=progress, surroundings=True, budget=budget)
    return Planned(ready.plan, ready.models)


def _of_models(sources: list[str], policy: str | None, profiler: Profiler) -> Planned:
    from coinfer.hardware.catalogue import default_processors
    from coinfer.plan import PolicyChoice
    from coinfer.planner.make_plan import make_plan
    from coinfer.planner.model_source import lasting_source
    from coinfer.planner.wishes import Wishes
    from coinfer.policies.registry import make_policy

    if policy is not None:
        make_policy(policy)  # one that cannot be made is found before anything is measured
    models, places = _models(sources)
    wishes = Wishes(
        policy=PolicyChoice() if policy is None else PolicyChoice(name=policy),
        surroundings=True,
        sources={name: lasting_source(place) for name, place in places.items()},
    )
    return make_plan(models, default_processors(), wishes, profiler)


def _models(sources: list[str]) -> tuple[dict[str, Model], dict[str, str]]:
    """Open models; return them and their sources by name."""
    from coinfer.plan.plan_destination import check_model_names
    from coinfer.planner.model_source import resolve_model

    models: dict[str, Model] = {}
    places: dict[str, str] = {}
    for source in sources:
        model = resolve_model(source)
        if model.name in models:
            raise ConfigurationError(
                f"two models are named {model.name!r}: {places[model.name]} and {source}; rename "
                "a file, or describe them in a scenario"
            )
        models[model.name], places[model.name] = model, source
    check_model_names(models)
    return models, places


def _table(plan: Plan) -> Table:
    """One row per span that is loaded on a processor."""
    from rich import box
    from rich.table import Table

    from coinfer.plan.index_ranges import span_text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for header in ("model", "variant", "cut", "processor", "precision"):
        table.add_column(header, overflow="fold")
    for header in ("batch", "ms", "MiB", "error"):
        table.add_column(header, justify="right", no_wrap=True)
    precisions = {processor.name: processor.precision for processor in plan.processors}
    shown = None
    for name, model in plan.models.items():
        for processor, span, entry in _loaded(plan, name):
            table.add_row(
                *((name, model.original.kind.value) if name != shown else ("", "")),
                "whole" if model.original.n_units == 1 else span_text(span),
                processor,
                precisions[processor],
                "fixed" if model.fixed_batch else str(model.batch),
                f"{entry.mean_s * 1e3:.3g}{' estimated' if entry.estimated else ''}",
                f"{entry.resident_bytes / 2**20:.1f}",
                "-" if entry.error is None else f"{entry.error:.2g}",
            )
            shown = name
    return table


def _loaded(plan: Plan, name: str) -> Iterator[tuple[str, Span, Measurement]]:
    """Iterate over what is loaded of a model, by processor and span."""
    entries = {(k.processor, k.span): entry for k, entry in plan.profile.restricted([name])}
    for processor, spans in plan.models[name].original.spans.items():
        for span in spans:
            if (processor, span) in entries:
                yield processor, span, entries[processor, span]


def _reasons(plan: Plan) -> Iterator[str]:
    for name, model in plan.models.items():
        for choice in model.choices:
            yield f"{name}, {choice.by.replace('_', ' ')}: {choice.what}"
            for each in choice.alternatives:
                yield f"  not {each.name}: {each.why}"


def _show_difference(folders: list[str], options: list[str]) -> None:
    from coinfer.plan.difference import differences
    from coinfer.plan.plan_folder import load_plan

    if options:
        raise ConfigurationError(
            f"--diff compares two saved plans, and {options[0]} is for making one; leave one out"
        )
    if len(folders) != 2:
        raise ConfigurationError(f"--diff compares two plans, got {len(folders)}; name two folders")
    one, other = (load_plan(folder).plan for folder in folders)
    found = list(differences(one, other))
    for line in found:
        out().print(line, soft_wrap=True)
    if not found:
        out().print("the plans are the same")
