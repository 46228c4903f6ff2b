"""Opened plan: a saved plan made ready to run here, or to be simulated anywhere.

To run, the machine and the files must be those that the plan was made for. What was edited by hand
and never measured is estimated from what was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from coinfer.backends.base import Backend
from coinfer.documents.yaml_document import YamlDocument
from coinfer.errors import ConfigurationError, ModelError
from coinfer.graph.cut_model import CutModel
from coinfer.graph.fusing.member import members_of
from coinfer.machine.profile import Profile
from coinfer.model import Model, load_model
from coinfer.model.inputs import fixed_first_axis
from coinfer.plan.measured_run import runs_of
from coinfer.plan.model_plan import ModelPlan
from coinfer.plan.plan import Plan
from coinfer.plan.plan_folder import SavedPlan, load_plan, read_bytes
from coinfer.plan.variant import variant_name
from coinfer.planner.make_plan import Planned
from coinfer.planner.model_source import resolve_model
from coinfer.planner.plan_checks import check_cut_of, check_declared, check_here, make_anew
from coinfer.planner.plan_estimates import estimated, unknown
from coinfer.planner.plan_variants import check_variants, opened_variants
from coinfer.profiling import default_cache
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
        name: _checked(saved, name)
        for name in saved.plan.models
        if unknown(saved.plan, name) and saved.plan.models[name].is_cut
    }
    check_variants(saved)
    return _with_forks_checked(estimated(saved, opened), saved, opened)


def open_plan(
    plan: Plan | str | Path,
    backends: Mapping[str, Backend] | None = None,
    *,
    data_root: Path | None = None,
) -> Planned:
    """Make a plan ready to run here.

    Args:
        plan: The plan, or the folder that it was saved in.
        backends: Backends by name, for those that are not to be looked up.
        data_root: A folder in which links of models' files may end, as for `load_model`.

    Raises:
        ScenarioError, ConfigurationError: as of `load_plan`; or it was made for another machine,
            other libraries or another file.
        ModelError: a model's file cannot be used.
    """
    saved = _in_memory(plan) if isinstance(plan, Plan) else load_plan(plan)
    saved = saved._replace(data_root=data_root)
    check_here(saved, backends or {})
    models = {name: _checked(saved, name) for name in saved.plan.models}
    done = estimated(saved, models)
    loads = {name: _load_of(model, done.models[name]) for name, model in models.items()}
    for name, load in loads.items():
        check_declared(saved, name, load)
    check_variants(saved)
    for name, model in models.items():
        loads |= opened_variants(saved, name, model)
    fused = {name: _fused(saved, name, models) for name in saved.plan.fused}
    return Planned(done, {**loads, **fused})


def _fused(saved: SavedPlan, name: str, models: Mapping[str, Model]) -> Model:
    """Open a fused variant of a plan and see that it is the one that was planned.

    Raises:
        ConfigurationError: its file is another one.
        ModelError: its file cannot be used.
    """
    planned = saved.plan.fused[name]
    path = Path(planned.graph.path)
    where = saved.where("fused", name, "graph")
    if hashlib.sha256(read_bytes(path.parent, path.name)).hexdigest() != planned.graph.sha256:
        raise ConfigurationError(
            f"{where}: {path} is not the graph that the plan was made with; restore it, or "
            f"{make_anew(saved)}"
        )
    fused = load_model(path, name=name)
    fingerprint_of(fused, default_cache())  # known then: sessions are found by it
    try:
        members_of(fused, {each: models[each] for each in planned.models})
    except ModelError as error:
        raise ModelError(f"{where}: {error}; {make_anew(saved)}") from error
    return fused


def _load_of(model: Model, planned: ModelPlan) -> Model | CutModel:
    """Return what an engine loads of a model."""
    if not planned.is_cut:
        return model
    from coinfer.graph.recut import recut  # needs the heavy libraries

    return recut(model, planned.original, Profile())


def _with_forks_checked(plan: Plan, saved: SavedPlan, opened: Mapping[str, Model]) -> Plan:
    """See that forks are forks, where the model's file is at hand."""
    for name, model in plan.models.items():
        if not model.original.forks or not model.original.units or name in opened:
            continue
        try:
            found = _opened(saved, name)
        except (ModelError, ConfigurationError) as error:
            plan = plan.warned(f"{name}: whether its forks are right was not checked: {error}")
            continue
        check_cut_of(saved, name, found)
    return plan


def _in_memory(plan: Plan) -> SavedPlan:
    runs = {
        variant_name(name, kind): runs_of(plan.measured, variant_name(name, kind), variant)
        for name, model in plan.models.items()
        for kind, variant in model.variants.items()
    }
    return SavedPlan(plan, Path(), runs, YamlDocument.parse("{}", origin="the plan"))


def _checked(saved: SavedPlan, name: str) -> Model:
    """Open a model of a plan and see that it can be cut where the plan says."""
    model = _opened(saved, name)
    check_cut_of(saved, name, model)
    return model


def _opened(saved: SavedPlan, name: str) -> Model:
    """Open a model of a plan and see that it is the one that was planned."""
    planned = saved.plan.models[name]
    model = _loaded(saved, name, planned)
    if planned.filling:
        if fixed_first_axis(model.inputs, model.outputs) != planned.filling:
            raise ConfigurationError(
                f"{saved.where('models', name, 'filling')}: the file of {name!r} has no fixed "
                f"batch of {planned.filling}; {make_anew(saved)}"
            )
        model = model.with_filling(planned.filling)
    elif model.batch_symbol is not None:
        model = model.with_batch(not planned.fixed_batch)
    if planned.padding:
        model = _padded(saved, model, planned)
    found = fingerprint_of(model, default_cache())
    if planned.fingerprint and found.full != planned.fingerprint:
        where = planned.source or name
        raise ConfigurationError(
            f"model {name!r}: {where} is not the model that the plan was made with; "
            f"{make_anew(saved)}"
        )
    return model


def _padded(saved: SavedPlan, model: Model, planned: ModelPlan) -> Model:
    having = {dim: {s.name for s in model.inputs if dim in s.shape} for dim in model.open_dims}
    for dim, row in planned.padding.items():
        if not row or not row.keys() <= having.get(dim, set()):
            raise ConfigurationError(
                f"{saved.where('models', model.name, 'padding')}: {model.name!r} has no inputs "
                f"{', '.join(row)} with an open dimension {dim!r}; {make_anew(saved)}"
            )
    return model.with_padding(planned.padding)


def _loaded(saved: SavedPlan, name: str, planned: ModelPlan) -> Model:
    graph = planned.original.graph
    if graph is None:
        if not planned.source:
            raise ModelError(
                f"the plan does not say where model {name!r} comes from, because it was made in "
                "memory; pass the models in place of the plan, or save them to files"
            )
        try:
            return resolve_model(planned.source, name=name, data_root=saved.data_root)
        except ModelError as error:
            where = saved.where("models", name, "source")
            raise ModelError(f"{where}: {error}; restore it, or {make_anew(saved)}") from error
    path = saved.folder / graph.path
    if hashlib.sha256(read_bytes(saved.folder, graph.path)).hexdigest() != graph.sha256:
        raise ConfigurationError(
            f"{path}: is not the graph that the plan was made with; restore it, or "
            f"{make_anew(saved)}"
        )
    return load_model(path, name=name)
