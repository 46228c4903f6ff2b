"""Opening events: what a plan tells the core of its models. Engine and simulator both ask here."""

from __future__ import annotations

import math
from collections.abc import Iterable

from coinfer.core.events import FusedLoaded, LoadedVariant, MemoryGiven, ModelLoaded
from coinfer.core.place import Loadable
from coinfer.documents.digest import digest_of
from coinfer.errors import ConfigurationError
from coinfer.machine.memories import HOST, memory_of, sharing
from coinfer.machine.profile import Profile
from coinfer.machine.span import Span, completes
from coinfer.plan.model_plan import ModelPlan
from coinfer.plan.plan import Plan
from coinfer.units import format_bytes

__all__ = [
    "check_memory",
    "fits",
    "fused_loaded",
    "least_memory",
    "loadables",
    "memory_given",
    "model_loaded",
]


def memory_given(plan: Plan) -> MemoryGiven | None:
    """Return the event that memories have a budget; None if none has.

    Raises:
        ConfigurationError: nothing of the plan is in a memory that is named.
    """
    if not plan.memory:
        return None
    known = dict.fromkeys([HOST, *(memory_of(processor) for processor in plan.processors)])
    for name in plan.memory:
        if name not in known:
            raise ConfigurationError(
                f"memory: there is no memory {name!r}; those of this machine are {', '.join(known)}"
            )
    return MemoryGiven(dict(plan.memory))


def model_loaded(
    plan: Plan, model: str, profile: Profile, *, are_loaded: bool = True
) -> ModelLoaded:
    """Return the event that a model of a plan can be run.

    Args:
        plan: The plan.
        model: Name of one of its models.
        profile: The times of what is loaded, or can be, of this model with its variants at least.
        are_loaded: Whether all that can be loaded of it is there, if memories have a budget.

    >>> from coinfer.machine.machine import Machine
    >>> from coinfer.machine.processor import Processor
    >>> cpu = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
    >>> profile = Profile.from_seconds({"m": {"cpu": 0.01}})
    >>> model_loaded(Plan.of(Machine(processors=(cpu,), profile=profile)), "m", profile).units
    1
    """
    planned, known = plan.models[model], profile.restricted([model])
    variant, swap_s = planned.original, plan.machine.swap_s(model)
    places: tuple[Loadable, ...] = ()
    if plan.memory:
        places = loadables(plan, model, known, are_loaded=are_loaded)
        large = [p for p in places if p.size_bytes > plan.memory.get(p.pool, math.inf)]
        never = {(name, place.span) for place in large for name in place.processors}
        known = known.where(lambda key: (key.processor, key.span) not in never)
        places = tuple(place for place in places if place not in large)
    others = tuple(
        LoadedVariant(
            name,
            each.error,
            each.use,
            each.n_units,
            profile.restricted([name]),
            each.forks,
            plan.machine.swap_s(name),
            each.batching,
        )
        for name, each in plan.serving(model).items()
        if name != model
    )
    return ModelLoaded(
        model, variant.n_units, known, variant.forks, swap_s, planned.batching, others, places
    )


def fused_loaded(plan: Plan, name: str, profile: Profile) -> FusedLoaded:
    """Return the event that a fused variant of a plan can be run; its members can be before.

    Args:
        plan: The plan.
        name: Name of one of its fused variants.
        profile: The times of what is loaded, of this variant at least.
    """
    return FusedLoaded(name, plan.fused[name].models, profile.restricted([name]))


def loadables(
    plan: Plan, model: str, profile: Profile, *, are_loaded: bool = False
) -> tuple[Loadable, ...]:
    """Return what can be loaded of a model, with what it takes.

    A span takes what was measured on whichever of the processors that share it it took most, at the
    largest batch: its weights and, as libraries keep these, the memory of its activations.
    """
    planned, machine = plan.models[model], plan.machine
    content = _content(planned) if planned.fingerprint else ""
    largest: dict[Span, dict[str, tuple[int, float]]] = {}
    for key, entry in profile:
        if key.model == model:
            row = largest.setdefault(key.span, {})
            size, load_s = row.get(key.processor, (0, 0.0))
            size = max(size, entry.resident_bytes + entry.run_bytes)
            row[key.processor] = size, max(load_s, entry.load_s)
    found = []
    for span, row in sorted(largest.items()):
        for group in sharing(machine.processors, machine.shares, row):
            names = tuple(processor.name for processor in group)
            takes = [row[name] for name in names if name in row]
            size, load_s = max(each[0] for each in takes), max(each[1] for each in takes)
            pool = memory_of(group[0])
            # Of a backend without versions nobody knows what its sessions share.
            of = content if group[0].backend in machine.identity else ""
            found.append(Loadable(span, names, pool, size, load_s, of, are_loaded))
    return tuple(found)


def _content(planned: ModelPlan) -> str:
    """Return what is equal for models whose spans of the same numbers are the same."""
    variant = planned.original
    units = [list(unit.operators) for unit in variant.units]
    return digest_of({"model": planned.fingerprint, "n_units": variant.n_units, "units": units})


def fits(plan: Plan, models: Iterable[str]) -> bool:
    """Tell whether memories have room for all of these models at once."""
    if not plan.memory:
        return True
    taken: dict[str, int] = {}
    seen = set[tuple[str, Span, str]]()
    profile = plan.profile
    for model in models:
        for place in loadables(plan, model, profile):
            key = (place.content or model, place.span, place.processors[0])
            if key not in seen:
                seen.add(key)
                taken[place.pool] = taken.get(place.pool, 0) + place.size_bytes
    return all(taken.get(name, 0) <= budget for name, budget in plan.memory.items())


def check_memory(plan: Plan) -> None:
    """See that every model can be run within the plan's memory.

    Raises:
        ConfigurationError: there are variants beside originals, which are always loaded; or a
            model has no way to its end whose largest span has room: the message says how much
            there must be.
    """
    if not plan.memory:
        return
    if others := [*(name for names in plan.cheaper.values() for name in names), *plan.fused]:
        raise ConfigurationError(
            f"memory: {', '.join(others)} would be loaded beside the originals, which no budget "
            "can do yet; leave out `memory`, or `variants` and `fuse`"
        )
    profile = plan.profile
    for model, planned in plan.models.items():
        places = loadables(plan, model, profile)
        n_units = planned.original.n_units
        budgets = {name: plan.memory.get(name, math.inf) for name in {p.pool for p in places}}
        usable = {p.span for p in places if p.size_bytes <= budgets[p.pool]}
        if completes(usable, n_units):
            continue
        needed = _least_need(places, n_units)
        raise ConfigurationError(
            f"memory: model {model!r} needs at least {format_bytes(needed)} at a time, for its "
            f"largest span; give `memory: {math.ceil(needed / 2**20)}MiB` or more, or cut it into "
            "smaller spans (`partition`)"
        )


def least_memory(plan: Plan, pool: str = HOST) -> int:
    """Return the bytes of a memory without which some model of a plan could not run.

    The other memories have what the plan gives them.
    """
    needed, profile = 0, plan.profile
    for model, planned in plan.models.items():
        places = loadables(plan, model, profile)
        others = [
            place._replace(size_bytes=place.size_bytes if place.pool == pool else 0)
            for place in places
            if place.pool == pool or place.size_bytes <= plan.memory.get(place.pool, math.inf)
        ]
        needed = max(needed, _least_need(others, planned.original.n_units))
    return needed


def _least_need(places: Iterable[Loadable], n_units: int) -> int:
    """Return the bytes of the largest span of the way that needs least at a time."""
    sizes = sorted({place.size_bytes for place in places})
    return next(
        size
        for size in sizes
        if completes({p.span for p in places if p.size_bytes <= size}, n_units)
    )
