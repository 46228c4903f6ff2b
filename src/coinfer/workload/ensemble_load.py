"""Ensemble load: an ensemble in a scenario, as the requests of its models one after the other.

The functions between them take no time here, and the number of items is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from coinfer.core.request import OnLate
from coinfer.documents.fields import (
    FilePath,
    Name,
    Problem,
    Section,
    WholeNumber,
    raise_all,
    unknown_name,
)
from coinfer.errors import ScenarioError
from coinfer.workload.arrivals import After, FollowerCount, Process
from coinfer.workload.deadline import Deadline
from coinfer.workload.ensemble import EnsembleDescription, Stage
from coinfer.workload.ensemble_file import load_ensemble

__all__ = ["EnsembleLoad", "EnsembleLoads", "after_one_another"]

_APART = "give each a model of its own; two may have the same source"

_TERMS = ("deadline", "priority", "on_late")


class EnsembleLoad(Section):
    """An ensemble, what its requests are promised, and how many items its stages have.

    Attributes:
        file: That describes it.
        deadline: Of the whole, as of a model.
        priority: Of all its models.
        on_late: What to do with a request of a stage whose deadline passes before it has started.
        items: By stage with `each`, how many items it has: so many, or a number that is drawn.
    """

    file: FilePath
    deadline: Deadline = None
    priority: WholeNumber = 0
    on_late: OnLate = OnLate.RUN
    items: dict[str, FollowerCount] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return {"file": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _can_be_late(self) -> EnsembleLoad:
        if self.on_late is OnLate.DROP and self.deadline is None:
            raise_all([Problem(("on_late",), "drop needs a deadline; add e.g. `deadline: 33ms`")])
        return self


EnsembleLoads = Annotated[dict[Name, EnsembleLoad], Field(default_factory=dict)]


def after_one_another(
    ensembles: Mapping[str, EnsembleLoad],
    models: dict[str, Any],
    arrivals: dict[str, Process],
) -> Iterator[Problem]:
    """Put in the place of each ensemble the requests of its models, and yield what is wrong.

    Args:
        ensembles: By name.
        models: Specs by name; those of ensembles get the promises of these.
        arrivals: By model; here also by ensemble, which are replaced.
    """
    owners: dict[str, str] = {}
    for name, load in ensembles.items():
        problems, chain = _chain_of(name, load)
        problems += _claims(name, chain, models, arrivals, owners)
        if name not in arrivals:
            text = f"ensemble {name!r} gets no requests; give it arrivals or remove it"
            problems.append(Problem(("arrivals",), text))
        yield from problems
        if problems:
            arrivals.pop(name, None)
            continue
        own = arrivals[name]
        found = {
            each: {model: after or own for model, after in chain.items()}
            if each == name
            else {each: process}
            for each, process in arrivals.items()
        }
        arrivals.clear()
        for each in found.values():
            arrivals.update(each)
        terms = {field: getattr(load, field) for field in _TERMS}
        for model in chain:
            models[model] = models[model].model_copy(update=terms)


def _claims(
    name: str,
    chain: Mapping[str, After | None],
    models: Mapping[str, BaseModel],
    arrivals: Mapping[str, Process],
    owners: dict[str, str],
) -> list[Problem]:
    """See that the models of an ensemble are there, and get requests from it only."""
    problems = []
    if name in models:
        problems.append(Problem(("ensembles", name), "is the name of a model, too; change it"))
    for model in chain:
        if model not in models:
            text = unknown_name("model", model, models)
            problems.append(Problem(("ensembles", name, "file"), text))
            continue
        if model in owners:
            text = f"model {model!r} is asked by ensemble {owners[model]!r}, too; {_APART}"
            problems.append(Problem(("ensembles", name, "file"), text))
            continue
        owners[model] = name
        if model in arrivals:
            text = (
                f"gets its requests from ensemble {name!r}; remove it here, or give these requests "
                "a model of their own with the same source"
            )
            problems.append(Problem(("arrivals", model), text))
        for field in _TERMS:
            if field in models[model].model_fields_set:
                text = f"is that of ensemble {name!r}; state it there"
                problems.append(Problem(("models", model, field), text))
    return problems


def _chain_of(name: str, load: EnsembleLoad) -> tuple[list[Problem], dict[str, After | None]]:
    """Return after which model each model comes; None: it is the first."""
    try:
        ensemble = load_ensemble(load.file)
    except ScenarioError as error:
        return [Problem(("ensembles", name, "file"), str(error))], {}
    problems = [
        Problem(("ensembles", name, *loc), f"{text} ({ensemble.origin})")
        for loc, text in _item_faults(ensemble, load)
    ]
    chain: dict[str, After | None] = {}
    for stage, parents in _asked_after(ensemble):
        fault = _fault_of(stage, parents, chain)
        if fault:
            text = f"{fault}, which a scenario cannot say ({ensemble.origin})"
            problems.append(Problem(("ensembles", name, "file"), text))
        if stage.model in chain:
            text = f"model {stage.model!r} is asked by two stages; {_APART}"
            problems.append(Problem(("ensembles", name, "file"), f"{text} ({ensemble.origin})"))
        chain[stage.model] = None
        if parents and not problems:
            count = load.items[stage.name] if stage.each else 1
            chain[stage.model] = After.model_validate({"after": parents[0].model, "count": count})
    return problems, chain


def _item_faults(
    ensemble: EnsembleDescription, load: EnsembleLoad
) -> Iterator[tuple[tuple[str, ...], str]]:
    known = {stage.name: stage for stage in ensemble.stages if stage.each and stage.model}
    for name in load.items:
        if name not in known:
            yield ("items", name), unknown_name("stage with `each`", name, known)
    for name in known:
        if name not in load.items:
            remedy = f"say how many, e.g. `items: {{{name}: 3}}` or `{{{name}: {{poisson: 3}}}}`"
            yield ("items",), f"stage {name!r} has any number of items; {remedy}"


def _asked_after(ensemble: EnsembleDescription) -> Iterator[tuple[Stage, list[Stage]]]:
    """Yield each stage that asks a model, with those of such stages that it directly waits for."""
    stages = {stage.name: stage for stage in ensemble.stages}
    nearest: dict[str, set[str]] = {}
    before: dict[str, set[str]] = {}
    for name, stage in stages.items():
        waits = {near for each in stage.after for near in nearest[each]}
        before[name] = waits.union(*(before[each] for each in stage.after))
        direct = {each for each in waits if not any(each in before[other] for other in waits)}
        nearest[name] = {name} if stage.model else direct
        if stage.model:
            yield stage, [stages[each] for each in stages if each in direct]


def _fault_of(stage: Stage, parents: list[Stage], before: Mapping[str, object]) -> str:
    """Say why a stage is no request that follows one other request; empty if it is."""
    if not parents:
        if before:
            return f"stage {stage.name!r} is not the only one that waits for no model"
        return f"stage {stage.name!r} has items before any model was asked" if stage.each else ""
    if len(parents) > 1:
        names = " and ".join(repr(each.name) for each in parents)
        return f"stage {stage.name!r} waits for both {names}"
    if parents[0].each:
        return f"stage {stage.name!r} waits for all items of {parents[0].name!r}"
    return ""
