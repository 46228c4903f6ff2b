"""Plan checks: whether a saved plan can be used here as it stands. Each error says where it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from coinfer.backends.base import Backend
from coinfer.errors import ConfigurationError
from coinfer.graph.cut_model import CutModel
from coinfer.hardware.cores import find_cores
from coinfer.model import Model
from coinfer.plan.plan_folder import SavedPlan
from coinfer.planner.identity import identity_of
from coinfer.profiling.declaration import undeclared

__all__ = ["check_cut_of", "check_declared", "check_here", "make_anew", "place_of"]


def check_here(saved: SavedPlan, backends: Mapping[str, Backend]) -> None:
    """See that a plan was made for this machine and these libraries.

    Raises:
        ConfigurationError: it was not; names what differs.
    """
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
            f"the plan was made for another machine: {'; '.join(differing)}; "
            f"{make_anew(saved)}, or simulate it with `coinfer simulate --plan`"
        )


def check_cut_of(saved: SavedPlan, name: str, model: Model) -> None:
    """See that a model can be cut where the plan says.

    Raises:
        ConfigurationError: it cannot.
    """
    variant = saved.plan.models[name].original
    if variant.n_units > 1 and not variant.units:
        raise ConfigurationError(
            f"{place_of(saved, name)}: {variant.n_units} units, but no `units` say which operators "
            f"are in which; {make_anew(saved)}"
        )
    if not variant.units:
        return
    from coinfer.graph.recut import check_cut  # needs the heavy libraries

    try:
        check_cut(model, variant)
    except ConfigurationError as error:
        raise ConfigurationError(f"{place_of(saved, name)}: {error}") from error


def check_declared(saved: SavedPlan, name: str, load: Model | CutModel) -> None:
    """See that no processor is given operators that it declares not to run.

    Raises:
        ConfigurationError: one is.
    """
    for processor in saved.plan.processors:
        for span in saved.plan.models[name].original.spans.get(processor.name, ()):
            model = load.pieces[span].model if isinstance(load, CutModel) else load
            if why := undeclared(model, processor):
                raise ConfigurationError(
                    f"{place_of(saved, name, 'processors', processor.name)}: {name!r} must not run "
                    f"there: {why}"
                )


def place_of(saved: SavedPlan, name: str, *loc: str) -> str:
    """Return `FILE:LINE` of a field of a model's original variant."""
    return saved.where("models", name, "variants", "original", *loc)


def make_anew(saved: SavedPlan) -> str:
    """Say how the plan is made anew."""
    if saved.folder == Path():
        return "make it anew"
    return f"make it anew with `coinfer plan SCENARIO -o {saved.folder}`"
