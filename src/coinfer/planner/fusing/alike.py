"""Alike: which models of a plan have one architecture, and why others cannot be fused."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from coinfer.errors import ModelError
from coinfer.model import Model, TensorSpec
from coinfer.plan.plan import Plan
from coinfer.planner.planning import Planning
from coinfer.profiling.fingerprints import fingerprint_of

__all__ = ["alike", "obstacle"]


def alike(
    plan: Plan, planning: Planning, names: Sequence[str], *, by_fingerprint: bool = False
) -> list[tuple[str, ...]]:
    """Group models whose graphs correspond as a whole; those with no other are left out.

    Graphs are only built where the inputs and outputs of several models agree.

    Args:
        plan: The plan.
        planning: Its models.
        names: Models that `obstacle` says nothing against.
        by_fingerprint: Look into no graph: only equal fingerprints count.
    """
    groups: dict[Hashable, list[str]] = {}
    for name in names:
        groups.setdefault(_outside(plan, planning.models[name], name), []).append(name)
    found: list[tuple[str, ...]] = []
    for group in groups.values():
        if len(group) > 1:
            by_graph: dict[str, list[str]] = {}
            for name, digest in _architectures(planning, group, by_fingerprint).items():
                by_graph.setdefault(digest, []).append(name)
            found += [tuple(each) for each in by_graph.values() if len(each) > 1]
    return found


def obstacle(plan: Plan, planning: Planning, name: str) -> str:
    """Say why a model cannot be fused, whatever others there are; nothing if it can."""
    model = planning.models[name]
    if name in planning.cut_models:
        return "it is cut, and fused variants run whole"
    if model.filling:
        return "its batch is fixed in the file, and its runs are filled up"
    if plan.models[name].padding:
        return "its requests are padded to share runs"
    if model.defaults:
        return "some of its inputs have defaults"
    if any(spec.dtype == object for spec in (*model.inputs, *model.outputs)):
        return "it has inputs or outputs of text"
    if len(plan.models[name].sizes) > 1:
        return "it was measured at several sizes, and a fused run has one"
    return ""


def _outside(plan: Plan, model: Model, name: str) -> Hashable:
    """Return what must agree before it is worth to look into graphs."""
    planned = plan.models[name]
    sizes = tuple(tuple(sorted(each.items())) for each in planned.sizes)
    symbols: dict[str, int] = {}
    specs = tuple(_spec(each, symbols) for each in (*model.inputs, *model.outputs))
    return specs, len(model.inputs), planned.batch, planned.fixed_batch, sizes


def _spec(spec: TensorSpec, symbols: dict[str, int]) -> Hashable:
    shape = tuple(
        -1 - symbols.setdefault(dim, len(symbols)) if isinstance(dim, str) else dim
        for dim in spec.shape
    )
    return str(spec.dtype), shape


def _architectures(
    planning: Planning, names: Sequence[str], by_fingerprint: bool
) -> Mapping[str, str]:
    """Return a digest of each graph; by the fingerprints alone if these agree already."""
    cache = planning.profiler.cache
    structures = {name: fingerprint_of(planning.models[name], cache).structure for name in names}
    if by_fingerprint or len(set(structures.values())) == 1:
        return structures
    from coinfer.graph.fusing.match import architecture_of  # needs the heavy libraries

    found = {}
    for name in names:
        try:
            found[name] = architecture_of(planning.models[name])
        except ModelError:
            continue  # it is valid, but of a kind that cannot be fused
    return found
