"""Opening events: what a plan tells the core of its models. Engine and simulator both ask here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from coinfer.core.events import FusedLoaded, LoadedVariant, MemoryGiven, ModelLoaded
from coinfer.core.place import Loadable
from coinfer.documents.digest import digest_of
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.machine.memories import HOST, memory_of, sharing
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span, completes
from coinfer.machine.variant_use import Use
from coinfer.plan.model_plan import ModelPlan
from coinfer.plan.plan import Plan
from coinfer.plan.variant import Variant
from coinfer.units import format_bytes

__all__ = [
    "Held",
    "check_memory",
    "fits",
    "fused_loaded",
    "held_on_host",
    "least_memory",
    "loadables",
    "memory_given",
    "model_loaded",
    "nothing_given",
    "too_large",
    "wanted",
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


def nothing_given(given: MemoryGiven) -> MemoryGiven:
    """Return the event that these memories have no room yet, until all that can be loaded is known.

    >>> nothing_given(MemoryGiven({"host": 100})).budgets
    {'host': 0}
    """
    return given._replace(budgets=dict.fromkeys(given.budgets, 0))


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
    planned = plan.models[model]
    variant, swap_s = planned.original, plan.machine.swap_s(model)
    known, places = _what_fits(plan, model, profile, are_loaded=are_loaded)
    others = []
    for name, each in plan.serving(model).items():
        if name != model:
            own, own_places = _what_fits(plan, name, profile, are_loaded=are_loaded)
            more = each.forks, plan.machine.swap_s(name), each.batching, own_places
            others.append(LoadedVariant(name, each.error, each.use, each.n_units, own, *more))
    fields = variant.forks, swap_s, planned.batching, tuple(others), places
    return ModelLoaded(model, variant.n_units, known, *fields)


def fused_loaded(
    plan: Plan, name: str, profile: Profile, *, are_loaded: bool = True
) -> FusedLoaded:
    """Return the event that a fused variant of a plan can be run; its members can be before.

    Args:
        plan: The plan.
        name: Name of one of its fused variants.
        profile: The times of what is loaded, or can be, of this variant at least.
        are_loaded: As for `model_loaded`.
    """
    known, places = _what_fits(plan, name, profile, are_loaded=are_loaded)
    return FusedLoaded(name, plan.fused[name].models, known, places, plan.machine.overhead_s)


def _what_fits(
    plan: Plan, variant: str, profile: Profile, *, are_loaded: bool
) -> tuple[Profile, tuple[Loadable, ...]]:
    """Return the times and the places of a variant, without those that memory has no room for."""
    known = profile.restricted([variant])
    if not plan.memory:
        return known, ()
    places = loadables(plan, variant, known, are_loaded=are_loaded)
    left = _left(plan)
    large = [p for p in places if not p.is_pinned and p.size_bytes > left(p.pool)]
    never = {(name, place.span) for place in large for name in place.processors}
    known = known.where(lambda key: (key.processor, key.span) not in never)
    return known, tuple(place for place in places if place not in large)


def loadables(
    plan: Plan, variant: str, profile: Profile, *, are_loaded: bool = False
) -> tuple[Loadable, ...]:
    """Return what can be loaded of a variant, with what it takes.

    A span takes what was measured on whichever of the processors that share it it took most, at the
    largest batch that is planned: its weights and, as libraries keep these, the memory of its
    activations. What was measured at larger ones, and did not pay, is never run. On a
    device with memory of its own the weights are there once, and each processor that has them keeps
    buffers for its inputs.
    """
    planned, machine = plan.models.get(variant), plan.machine
    content = _content(planned) if planned is not None and planned.fingerprint else ""
    pinned = _pinned(plan)
    own = [(key, entry) for key, entry in profile if key.model == variant]
    most = _largest_batches(plan, variant, [key for key, _ in own])
    largest: dict[Span, dict[str, tuple[int, int, float]]] = {}
    for key, entry in own:
        if key.batch <= most[key.processor, key.span]:
            row = largest.setdefault(key.span, {})
            size, run_size, load_s = row.get(key.processor, (0, 0, 0.0))
            size = max(size, entry.resident_bytes + entry.run_bytes)
            run_size = max(run_size, entry.run_bytes)
            row[key.processor] = size, run_size, max(load_s, entry.load_s)
    found = []
    for span, row in sorted(largest.items()):
        for group in sharing(machine.processors, machine.shares, row):
            names = tuple(processor.name for processor in group)
            takes = [row[name] for name in names if name in row]
            size, load_s = max(each[0] for each in takes), max(each[2] for each in takes)
            pool = memory_of(group[0])
            if pool != HOST:
                size += sum(each[1] for each in takes) - max(each[1] for each in takes)
            # Of a backend without versions nobody knows what its sessions share.
            of = content if group[0].backend in machine.identity else ""
            fields = size, load_s, of, are_loaded, variant in pinned
            found.append(Loadable(span, names, pool, *fields))
    return tuple(found)


def _largest_batches(
    plan: Plan, variant: str, keys: Iterable[ProfileKey]
) -> dict[tuple[str, Span], int]:
    """Return by processor and span the smallest measured batch that no planned run exceeds."""
    planned = plan.models.get(variant)
    batching = plan.batchings.get(variant) if planned is None else planned.batching
    alone = 1 if planned is None else planned.filling or planned.batch
    found: dict[tuple[str, Span], list[int]] = {}
    for key in keys:
        found.setdefault((key.processor, key.span), []).append(key.batch)
    most = {}
    for (processor, span), batches in found.items():
        planned_most = max(alone, batching.at(span) if batching is not None else 0)
        enough = [batch for batch in batches if batch >= planned_most]
        most[processor, span] = min(enough, default=max(batches))
    return most


def _pinned(plan: Plan) -> set[str]:
    """Return the variants of which all that is planned to be loaded is never evicted."""
    return {wanted(plan, model)[0] for model in plan.pinned if model in plan.models}


def _pinned_bytes(plan: Plan) -> dict[str, int]:
    """Return the bytes of all that is never evicted, by name of the memory."""
    taken: dict[str, int] = {}
    for variant in _pinned(plan):
        for place in loadables(plan, variant, plan.profile):
            taken[place.pool] = taken.get(place.pool, 0) + place.size_bytes
    return taken


def _left(plan: Plan) -> Callable[[str], float]:
    """Return what tells how many bytes a memory has for what is not pinned."""
    taken = _pinned_bytes(plan)
    return lambda pool: plan.memory.get(pool, math.inf) - taken.get(pool, 0)


def _content(planned: ModelPlan) -> str:
    """Return what is equal for models whose spans of the same numbers are the same."""
    variant = planned.original
    units = [list(unit.operators) for unit in variant.units]
    return digest_of({"model": planned.fingerprint, "n_units": variant.n_units, "units": units})


def fits(plan: Plan, models: Iterable[str]) -> bool:
    """Tell whether memories have room for all of these models at once, with all their variants."""
    if not plan.memory:
        return True
    taken: dict[str, int] = {}
    seen = set[tuple[str, Span, str]]()
    profile, among = plan.profile, set(models)
    names = [name for model in models for name in {model: None, **plan.serving(model)}]
    names += [name for name, fused in plan.fused.items() if among.issuperset(fused.models)]
    for name in names:
        for place in loadables(plan, name, profile):
            key = (place.content or name, place.span, place.processors[0])
            if key not in seen:
                seen.add(key)
                taken[place.pool] = taken.get(place.pool, 0) + place.size_bytes
    return all(taken.get(name, 0) <= budget for name, budget in plan.memory.items())


class Held(NamedTuple):
    """What is loaded without a budget.

    Attributes:
        places: By variant, what of it may be evicted.
        movable: Bytes of that; what several variants share counts once.
        others: Bytes of what must stay.
        least: Bytes without which some variant that may be evicted could not run.
    """

    places: Mapping[str, tuple[Loadable, ...]]
    movable: int
    others: int
    least: int


def held_on_host(plan: Plan, can_load_again: Callable[[str], bool]) -> Held:
    """Return what a plan without a budget has loaded into the memory of the CPU cores.

    Args:
        plan: What is loaded.
        can_load_again: Tells whether a variant, or fused one, could be loaded once more.
    """
    names = [name for model in plan.models for name in {model: None, **plan.serving(model)}]
    entries: dict[str, dict[ProfileKey, Measurement]] = {}
    for key, entry in plan.profile:  # once: it is large, and threads that must not wait ask
        entries.setdefault(key.model, {})[key] = entry
    rows: dict[str, dict[tuple[str, Span, str], Loadable]] = {}
    for name in (*names, *plan.fused):
        found = loadables(plan, name, Profile(entries.get(name, {})), are_loaded=True)
        rows[name] = {
            (place.content or name, place.span, place.processors[0]): place
            for place in found
            if place.pool == HOST
        }
    stay = {
        key: place for name in rows if not can_load_again(name) for key, place in rows[name].items()
    }
    may_go = {name: row for name, row in rows.items() if row and not stay.keys() & row.keys()}
    movable = {key: place for row in may_go.values() for key, place in row.items()}
    sizes = [place.size_bytes for place in movable.values()]
    return Held(
        {name: tuple(row.values()) for name, row in may_go.items()},
        movable=sum(sizes),
        others=sum(place.size_bytes for place in stay.values()),
        least=max(sizes, default=0),
    )


def check_memory(plan: Plan) -> None:
    """See that every model can be run within the plan's memory.

    Raises:
        UnknownNameError: there is no model of a name that is to be pinned.
        ConfigurationError: what is to be pinned has no room, or a model has no way to its end whose
            largest span has room beside that: the original, or what always serves in its place. The
            message says how much there must be.
    """
    for model in plan.pinned:
        if model not in plan.models:
            raise UnknownNameError.of("model", model, plan.models)
    if not plan.memory:
        return
    pinned = _pinned_bytes(plan)
    _check_pinned(plan, pinned)
    missed = []
    for model in too_large(plan):
        name, variant = wanted(plan, model)
        places = loadables(plan, name, plan.profile)
        missed.append((_least_need(places, variant.n_units), name, places[0].pool))
    if not missed:
        return
    needed, name, pool = max(missed, key=lambda each: each[0])  # with that, the others run, too
    if pinned:
        whole = needed + pinned.get(pool, 0)
        raise ConfigurationError(
            f"memory: model {name!r} needs at least {format_bytes(needed)} at a time beside "
            f"what is pinned; give a budget of {_mib(whole)} or more, or pin less"
        )
    raise ConfigurationError(
        f"memory: model {name!r} needs at least {format_bytes(needed)} at a time, for its "
        f"largest span; give `memory: {_mib(needed)}` or more, or cut it into "
        "smaller spans (`partition`)"
    )


def too_large(plan: Plan) -> list[str]:
    """Return the models that cannot be run within a plan's memory: the smallest way has no room."""
    left, found = _left(plan), []
    for model in plan.models:
        name, variant = wanted(plan, model)
        places = loadables(plan, name, plan.profile)
        usable = {p.span for p in places if p.is_pinned or p.size_bytes <= left(p.pool)}
        if not completes(usable, variant.n_units):
            found.append(model)
    return found


def least_memory(plan: Plan, pool: str = HOST) -> int:
    """Return the bytes of a memory without which some model of a plan could not run, or a pin.

    The other memories have what the plan gives them.
    """
    needed, profile = 0, plan.profile
    for model in plan.models:
        name, variant = wanted(plan, model)
        places = loadables(plan, name, profile)
        others = [
            place._replace(size_bytes=place.size_bytes if place.pool == pool else 0)
            for place in places
            if place.pool == pool or place.size_bytes <= plan.memory.get(place.pool, math.inf)
        ]
        needed = max(needed, _least_need(others, variant.n_units))
    return needed + _pinned_bytes(plan).get(pool, 0)


def _check_pinned(plan: Plan, pinned: Mapping[str, int]) -> None:
    for pool, taken in pinned.items():
        if taken > plan.memory.get(pool, math.inf):
            raise ConfigurationError(
                f"memory: {', '.join(plan.pinned)} cannot be pinned: they take "
                f"{format_bytes(taken)} of {pool!r}; give a budget of {_mib(taken)} or more, or "
                "pin less"
            )


def _mib(size: int) -> str:
    return f"{math.ceil(size / 2**20)}MiB"


def wanted(plan: Plan, model: str) -> tuple[str, Variant]:
    """Return the variant of a model that serves while nobody would be late, and its name."""
    always = [
        (name, each)
        for name, each in plan.serving(model).items()
        if name != model and each.use is Use.ALWAYS
    ]
    original = plan.models[model].original
    return max(always, key=_error, default=(model, original))


def _error(named: tuple[str, Variant]) -> float:
    return named[1].error


def _least_need(places: Iterable[Loadable], n_units: int) -> int:
    """Return the bytes of the largest span of the way that needs least at a time."""
    sizes = sorted({place.size_bytes for place in places})
    return next(
        size
        for size in sizes
        if completes({p.span for p in places if p.size_bytes <= size}, n_units)
    )
