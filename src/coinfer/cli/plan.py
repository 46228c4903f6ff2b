"""`coinfer plan`: decide what runs where, show it with the reasons, and keep it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from coinfer.cli.console import new_table, out, print_lines
from coinfer.cli.explaining import alternative_lines, policy_lines
from coinfer.cli.options import AllowDataOption, DimOption, PolicyOption, sizes
from coinfer.cli.progress_bars import profiler_bar
from coinfer.errors import ConfigurationError
from coinfer.hardware.catalogue import default_processors
from coinfer.plan import AUTO, PolicyChoice
from coinfer.plan.index_ranges import span_text
from coinfer.plan.variant import Kind
from coinfer.planner.model_source import lasting_source, resolve_model
from coinfer.units import parse_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coinfer.machine.profile import Measurement
    from coinfer.machine.span import Span
    from coinfer.model import Model
    from coinfer.plan import Plan
    from coinfer.plan.variant import Variant
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
    policy: PolicyOption = None,
    dim: DimOption = None,
    allow_data_in: AllowDataOption = None,
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

    Where a scenario names no policy, simulations of its load choose one.

    A kept plan is a folder that can be read, compared and edited. `coinfer run SCENARIO --plan
    FOLDER` starts from it without measuring anything.
    """
    from coinfer.plan.plan_destination import check_can_save
    from coinfer.plan.plan_folder import save_plan

    if diff:
        given = {"-o": output, "--why": why, "--policy": policy, "--dim": dim}
        given["--allow-data-in"] = allow_data_in is not None
        given["--measure"] = measure
        _show_difference(sources, [option for option, value in given.items() if value])
        return
    budget_s = math.inf if measure is None else parse_seconds(measure)
    if output is not None:
        check_can_save(output)
    made = _made(sources, policy, budget_s, sizes(dim), allow_data_in)
    out().print(_table(made))
    print_lines(*policy_lines(made, why=why), *(_reasons(made) if why else ()))
    print_lines(*(f"warning: {warning}" for warning in made.warnings))
    if output is not None:
        save_plan(made, Path(output))
        print_lines(f"plan: {output}")


def _made(
    sources: list[str],
    policy: str | None,
    budget_s: float,
    dims: Mapping[str, int],
    data_root: Path | None,
) -> Plan:
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
    budget = Budget(budget_s)
    with profiler_bar() as progress:
        profiler = Profiler(cache=default_cache(), progress=progress, budget=budget)
        if not scenarios:
            return _of_models(sources, policy, profiler, dims, data_root)
        scenario = load_scenario(scenarios[0])
        if policy is None and "policy" not in scenario.model_fields_set:
            policy = AUTO
        scenario = scenario.with_options(policy=policy)
        ready = prepare(scenario, profiler, surroundings=True, dims=dims, data_root=data_root)
    return ready.plan


def _of_models(
    sources: list[str],
    policy: str | None,
    profiler: Profiler,
    dims: Mapping[str, int],
    data_root: Path | None,
) -> Plan:
    from coinfer.planner.make_plan import make_plan
    from coinfer.planner.wishes import Wishes
    from coinfer.policies.registry import make_policy

    if policy is not None:
        make_policy(policy)  # one that cannot be made is found before anything is measured
    models, places = _models(sources, data_root)
    wishes = Wishes(
        policy=PolicyChoice() if policy is None else PolicyChoice(name=policy),
        surroundings=True,
        dims=dims,
        sources={name: lasting_source(place) for name, place in places.items()},
    )
    return make_plan(models, default_processors(), wishes, profiler).plan


def _models(sources: list[str], data_root: Path | None) -> tuple[dict[str, Model], dict[str, str]]:
    """Open models; return them and their sources by name."""
    from coinfer.plan.plan_destination import check_model_names

    models: dict[str, Model] = {}
    places: dict[str, str] = {}
    for source in sources:
        model = resolve_model(source, data_root=data_root)
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
    names = ("model", "variant", "cut", "processor", "precision")
    table = new_table(*names, figures=("batch", "ms", "MiB", "error"))
    precisions = {processor.name: processor.precision for processor in plan.processors}
    shown: tuple[str, str] | None = None
    for name, model in plan.models.items():
        for kind, variant, processor, span, entries in _loaded(plan, name):
            seconds = [entry.mean_s * 1e3 for entry in entries]
            times = dict.fromkeys(f"{each:.3g}" for each in (min(seconds), max(seconds)))
            errors = [entry.error for entry in entries if entry.error is not None]
            if variant.error:
                errors = [variant.error]
            note = " ".join(dict.fromkeys(each.origin for each in entries)).rstrip()
            is_first = shown is None or shown[0] != name
            table.add_row(
                name if is_first else "",
                kind if shown != (name, kind) else "",
                "whole" if variant.n_units == 1 else span_text(span),
                processor,
                precisions[processor],
                "fixed" if model.fixed_batch else str(model.batch),
                f"{' to '.join(times)} {note}".rstrip(),
                f"{entries[0].resident_bytes / 2**20:.1f}",
                "-" if not errors else f"{max(errors):.2g}",
            )
            shown = (name, kind)
    for name, fused in plan.fused.items():
        shown = None
        for key, entry in plan.profile.restricted([name]).at_smallest:
            table.add_row(
                *((name, "fused") if shown is None else ("", "")),
                "whole",
                key.processor,
                precisions[key.processor],
                str(fused.batch),
                f"{entry.mean_s * 1e3:.3g}",
                f"{entry.resident_bytes / 2**20:.1f}",
                "-" if entry.error is None else f"{entry.error:.2g}",
            )
            shown = (name, "fused")
    return table


def _loaded(plan: Plan, model: str) -> Iterator[tuple[str, Variant, str, Span, list[Measurement]]]:
    """Iterate over what is loaded of a model, by variant, processor and span, with its times."""
    for name, variant in plan.serving(model).items():
        entries: dict[tuple[str, Span], list[Measurement]] = {}
        for key, entry in plan.profile.restricted([name]):
            if key.batch != plan.models[model].batch:
                continue  # what is measured for riders is among the reasons
            entries.setdefault((key.processor, key.span), []).append(entry)
        kind = variant.kind.value
        if variant.kind is not Kind.ORIGINAL:
            kind = f"{kind}, {variant.use.value.replace('_', ' ')}"
        for processor, spans in variant.spans.items():
            for span in spans:
                if (processor, span) in entries:
                    yield kind, variant, processor, span, entries[processor, span]


def _reasons(plan: Plan) -> Iterator[str]:
    for name, model in plan.models.items():
        for choice in model.choices:
            yield f"{name}, {choice.by.replace('_', ' ')}: {choice.what}"
            yield from alternative_lines(choice.alternatives)
    for name, fused in plan.fused.items():
        yield f"{name}: {', '.join(fused.models)}"
        for choice in fused.choices:
            yield f"  {choice.what}"
            yield from alternative_lines(choice.alternatives)


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
    print_lines(*(list(differences(one, other)) or ["the plans are the same"]))
