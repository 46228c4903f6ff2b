"""Opened plan: a saved plan made ready to run here, or to be simulated anywhere.

To run, the machine and the files must be those that the plan was made for. What was edited by hand
and never measured is estimated from what was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from coinfer.backends.base import Backend
from coinfer.documents.yaml_document import YamlDocument
from coinfer.errors import ConfigurationError, ModelError
from coinfer.graph.cut_model import CutModel
from coinfer.hardware.cores import find_cores
from coinfer.machine.estimate import by_analogy
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.model import Model, load_model
from coinfer.plan.measured_run import MeasuredRun, runs_of
from coinfer.plan.model_plan import ModelPlan
from coinfer.plan.plan import Plan
from coinfer.plan.plan_folder import SavedPlan, load_plan, read_bytes
from coinfer.planner.identity import identity_of
from coinfer.planner.make_plan import Planned
from coinfer.planner.model_source import resolve_model
from coinfer.profiling import default_cache
from coinfer.profiling.declaration import undeclared
from coinfer.profiling.fingerprints import fingerprint_of

__all__ = ["open_plan", "read_plan"]


def read_plan(folder: str | Path) -> Plan:
    """Read a plan to simulate it; models are opened only where a cut was changed by hand.

    Raises:
        ScenarioError, ConfigurationError: as of `load_plan`, or something that was never measured
            cannot be estimated.
        ModelError: a model whose cut was changed cannot be used.
    """
    saved = load_plan(folder)
    opened = {
        name: _opened(saved, name)
        for name in saved.plan.models
        if _unknown(saved.plan, name) and saved.plan.models[name].is_cut
    }
    for name, model in opened.items():
        _check_cut(saved, name, model)
    return _with_forks_checked(_estimated(saved, opened), saved, opened)


def open_plan(plan: Plan | str | Path, backends: Mapping[str, Backend] | None = None) -> Planned:
    """Make a plan ready to run here.

    Args:
        plan: The plan, or the folder that it was saved in.
        backends: Backends by name, for those that are not to be looked up.

    Raises:
        ScenarioError, ConfigurationError: as of `load_plan`; or it was made for another machine,
            other libraries or another file.
        ModelError: a model's file cannot be used.
    """
    saved = _in_memory(plan) if isinstance(plan, Plan) else load_plan(plan)
    _check_here(saved, backends or {})
    models = {name: _opened(saved, name) for name in saved.plan.models}
    for name, model in models.items():
        _check_cut(saved, name, model)
    done = _estimated(saved, models)
    loads = {name: _load_of(model, done.models[name]) for name, model in models.items()}
    for name, load in loads.items():
        _check_declared(saved, name, load)
    return Planned(done, loads)


def _load_of(model: Model, planned: ModelPlan) -> Model | CutModel:
    """Return what an engine loads of a model."""
    if not planned.is_cut:
        return model
    from coinfer.graph.recut import recut  # needs the heavy libraries

    return recut(model, planned.original, Profile())


def _check_cut(saved: SavedPlan, name: str, model: Model) -> None:
    """See that a model can be cut where the plan says."""
    variant = saved.plan.models[name].original
    if variant.n_units > 1 and not variant.units:
        raise ConfigurationError(
            f"{_place(saved, name)}: {variant.n_units} units, but no `units` say which operators "
            f"are in which; {_anew(saved)}"
        )
    if not variant.units:
        return
    from coinfer.graph.recut import partition_of  # needs the heavy libraries

    try:
        partition_of(model, variant)
    except ConfigurationError as error:
        raise ConfigurationError(f"{_place(saved, name)}: {error}") from error


def _with_forks_checked(plan: Plan, saved: SavedPlan, opened: Mapping[str, Model]) -> Plan:
    """See that forks are forks, where the model's file is at hand."""
    for name, model in plan.models.items():
        if not model.original.forks or not model.original.units or name in opened:
            continue
        try:
            found = _opened(saved, name)
        except ModelError as error:
            plan = plan.warned(f"{name}: whether its forks are right was not checked: {error}")
            continue
        _check_cut(saved, name, found)
    return plan


def _check_declared(saved: SavedPlan, name: str, load: Model | CutModel) -> None:
    """See that no processor is given operators that it declares not to run."""
    for processor in saved.plan.processors:
        for span in saved.plan.models[name].original.spans.get(processor.name, ()):
            model = load.pieces[span].model if isinstance(load, CutModel) else load
            if why := undeclared(model, processor):
                raise ConfigurationError(
                    f"{_place(saved, name, 'processors', processor.name)}: {name!r} must not run "
                    f"there: {why}"
                )


def _place(saved: SavedPlan, name: str, *loc: str) -> str:
    return saved.where("models", name, "variants", "original", *loc)


def _in_memory(plan: Plan) -> SavedPlan:
    runs = {name: runs_of(plan.measured, name, m.original) for name, m in plan.models.items()}
    return SavedPlan(plan, Path(), runs, YamlDocument.parse("{}", origin="the plan"))


def _check_here(saved: SavedPlan, backends: Mapping[str, Backend]) -> None:
    machine = saved.plan.machine
    if not machine.identity:
        raise ConfigurationError(
            f"the plan is for {machine.name}, which a file describes: it can only be simulated"
        )
    here = identity_of(machine.processors, backends)
    differing = [
        f"{what} was {then!r} and is {here.get(what, 'not there')!r} here"
        for what, then in machine.identity.items()
        if here.get(what) != then
    ]
    usable = find_cores().numbers
    foreign = sorted({c for p in machine.processors for c in p.cores if c not in usable})
    if foreign:
        differing.append(f"core {foreign[0]} may not be used here")
    if differing:
        raise ConfigurationError(
            f"the plan was made for another machine: {'; '.join(differing)}; {_anew(saved)}, or "
            "simulate it with `coinfer simulate --plan`"
        )


def _anew(saved: SavedPlan) -> str:
    return f"make it anew with `coinfer plan SCENARIO -o {saved.folder}`"


def _opened(saved: SavedPlan, name: str) -> Model:
    """Open a model of a plan and see that it is the one that was planned."""
    planned = saved.plan.models[name]
    model = _loaded(saved, name, planned)
    found = fingerprint_of(model, default_cache())
    if planned.fingerprint and found.full != planned.fingerprint:
        where = planned.source or name
        raise ConfigurationError(
            f"model {name!r}: {where} is not the model that the plan was made with; {_anew(saved)}"
        )
    return model


def _loaded(saved: SavedPlan, name: str, planned: ModelPlan) -> Model:
    graph = planned.original.graph
    if graph is None:
        if not planned.source:
            raise ModelError(
                f"the plan does not say where model {name!r} comes from, because it was made in "
                "memory; pass the models in place of the plan, or save them to files"
            )
        return resolve_model(planned.source, name=name)
    path = saved.folder / graph.path
    if hashlib.sha256(read_bytes(saved.folder, graph.path)).hexdigest() != graph.sha256:
        raise ConfigurationError(
            f"{path}: is not the graph that the plan was made with; restore it, or {_anew(saved)}"
        )
    return load_model(path, name=name)


def _unknown(plan: Plan, name: str) -> list[tuple[str, Span]]:
    """Return what is to be loaded of a model and was never measured so."""
    planned = plan.models[name]
    known = {
        (key.processor, key.span)
        for key, _ in plan.measured.restricted([name])
        if key.batch == planned.batch
    }
    return [
        (processor, span)
        for processor, spans in plan.models[name].original.spans.items()
        for span in spans
        if (processor, span) not in known
    ]


def _estimated(saved: SavedPlan, models: Mapping[str, Model]) -> Plan:
    """Add estimates for what was never measured, and say so."""
    plan = saved.plan
    for name in saved.plan.models:
        unknown = _unknown(plan, name)
        if not unknown:
            continue
        planned = plan.models[name]
        _check_estimable(saved, name, unknown)
        if planned.is_cut:
            seconds = _of_spans(planned, models[name], saved.runs[name])
        else:
            seconds = _of_whole(plan, name)
        entries = {}
        for processor, span in unknown:
            expected_s = seconds.get((processor, span))
            if expected_s is None:
                place = _place(saved, name, "processors", processor)
                raise ConfigurationError(
                    f"{place}: nothing was measured that tells how long {name!r} takes on "
                    f"{processor!r}; take it out, or {_anew(saved)}"
                )
            key = ProfileKey(name, processor, planned.batch, span)
            entries[key] = Measurement(seconds=(expected_s,), estimated=True)
        plan = plan.with_profile(plan.measured.merged(Profile(entries)))
        pairs = ", ".join(f"{span.first}-{span.last} on {p}" for p, span in unknown)
        what = f"units {pairs}" if planned.is_cut else ", ".join(p for p, _ in unknown)
        plan = plan.warned(f"{name}: the times of {what} are estimated, not measured")
    return plan


def _check_estimable(saved: SavedPlan, name: str, unknown: Iterable[tuple[str, Span]]) -> None:
    """What was not measured may not run below fp32, and at another batch size nothing is known."""
    precisions = {p.name: p.precision for p in saved.plan.processors}
    batch = saved.plan.models[name].batch
    batches = {run.batch for run in saved.runs[name]}
    if batches and batch not in batches:
        measured = ", ".join(map(str, sorted(batches)))
        raise ConfigurationError(
            f"{saved.where('models', name, 'batch')}: {name!r} was measured at batch {measured}, "
            f"not {batch}; {_anew(saved)}"
        )
    for processor, _ in unknown:
        if precisions[processor] != "fp32":
            raise ConfigurationError(
                f"{_place(saved, name, 'processors', processor)}: {name!r} was not measured on "
                f"{processor!r} or is not precise enough in {precisions[processor]}; take it out, "
                f"or {_anew(saved)}"
            )


def _of_whole(plan: Plan, name: str) -> dict[tuple[str, Span], float]:
    table: dict[str, dict[str, float]] = {}
    for key, entry in plan.measured:
        if key.span == Span():
            table.setdefault(key.model, {})[key.processor] = entry.mean_s
    expected = {p.name: by_analogy(table, name, p.name) for p in plan.processors}
    return {(p, Span()): seconds for p, seconds in expected.items() if seconds is not None}


def _of_spans(
    planned: ModelPlan, model: Model, runs: Iterable[MeasuredRun]
) -> dict[tuple[str, Span], float]:
    from coinfer.graph.recut import partition_of  # need the heavy libraries
    from coinfer.graph.shares import costs_by_operator, operator_shares
    from coinfer.graph.span_times import SpanTimes

    partition = partition_of(model, planned.original)
    times = SpanTimes(operator_shares(partition.operators, costs_by_operator(model)))
    everything = tuple(range(len(partition.operators)))
    for run in runs:  # a run of no operators in particular is one of the whole model
        times.note(run.processor, run.operators or everything, run.measurement.mean_s)
    return {
        (processor, span): seconds
        for span, row in times.table(partition).items()
        for processor, seconds in row.items()
    }
