"""Compress: cheaper variants of the models for which they are wished.

Rule: a variant is made, or taken as it was given, and kept if it is within the error that is
allowed and surely faster on some processor (`planner.compressing.variant_maker`). From here on it
is planned as a model of its own, with the wishes of its model; what its outputs may be off is what
they must agree with the reference within. The pass `variants` puts it beside its model again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

from coinfer.backends.base import Tensors
from coinfer.errors import ConfigurationError
from coinfer.model import Model, load_model
from coinfer.plan.choice import Alternative, Choice
from coinfer.plan.plan import Plan
from coinfer.plan.variant import Kind, variant_name
from coinfer.planner.planning import PlannedVariant, Planning
from coinfer.planner.wishes import Wishes
from coinfer.profiling.fingerprints import fingerprint_of
from coinfer.workload.variants_spec import VariantsSpec

__all__ = ["compress"]

T = TypeVar("T")

_RANDOM_SAMPLES = 12


def compress(plan: Plan, planning: Planning) -> Plan:
    """Add the variants that are worth having, each as a model of its own.

    Raises:
        ConfigurationError: a given one is further off than is allowed, or a name is taken.
        ModelError: a given one cannot be used.
    """
    for name, spec in planning.wishes.variants.items():
        if spec.asked:
            plan = _with_variants(plan, planning, name, spec)
    return plan


def _with_variants(plan: Plan, planning: Planning, name: str, spec: VariantsSpec) -> Plan:
    from coinfer.planner.compressing.variant_maker import NoVariantError, VariantMaker

    model = planning.models[name]
    is_random = name in planning.random
    maker = VariantMaker(
        model=model,
        samples=_samples(planning, name, model, is_random=is_random),
        is_data_aware=not is_random,
        max_error=spec.max_error,
        processors=plan.processors,
        profiler=planning.profiler,
    )
    lost: list[Alternative] = []
    for text, graph in spec.asked.items():
        kind = Kind(text)
        try:
            made = maker.made(kind, graph)
        except NoVariantError as error:
            lost.append(Alternative(kind.value, str(error)))
            plan = plan.warned(f"{name} has no {kind} variant: {error}")
            continue
        variant = variant_name(name, kind)
        if variant in plan.models:
            raise ConfigurationError(f"a model is called {variant!r}, as a variant is; rename it")
        if is_random:
            plan = plan.warned(
                f"{variant}: its error is that on random inputs, which says little of a trained "
                "network; give real ones"
            )
        loaded = load_model(made.graph.path, name=variant).like(model)
        planned = PlannedVariant(name, kind, spec.use, made.error, spec.max_error, made.graph)
        _add(planning, variant, loaded, planned)
        own = dataclasses.replace(
            plan.models[name],
            source=made.graph.path,
            fingerprint=fingerprint_of(loaded, planning.profiler.cache).full,
            choices=(Choice("compress", made.why),),
        )
        plan = dataclasses.replace(plan, models={**plan.models, variant: own})
    if lost:
        original = plan.models[name].original
        kinds = [each.kind.value for each in planning.variants.values() if each.model == name]
        choice = Choice("compress", ", ".join(kinds) or "none", tuple(lost))
        plan = plan.with_variant(name, original, choice)
    return plan


def _samples(planning: Planning, name: str, model: Model, *, is_random: bool) -> list[Tensors]:
    """Return what a variant is chosen with and judged by."""
    given = planning.samples[name]
    if not is_random:
        return [model.input_check.filled(feed) for feed in given]
    sizes = model.input_check.sizes_of(given[0])
    dims = {dim: size for dim, size in sizes.items() if dim in model.open_dims}
    feeds = (model.sample_inputs(seed=seed, dims=dims) for seed in range(_RANDOM_SAMPLES))
    return [model.input_check.filled(feed) for feed in feeds]


def _add(planning: Planning, variant: str, loaded: Model, planned: PlannedVariant) -> None:
    """Plan a variant as a model of its own, with what is wished of its model."""
    model = planned.model
    planning.models = {**planning.models, variant: loaded}
    planning.samples[variant] = planning.samples[model]
    planning.variants[variant] = planned
    planning.wishes = _wished_too(planning.wishes, model, variant)


def _wished_too(wishes: Wishes, model: str, variant: str) -> Wishes:
    asked = {(variant, processor) for name, processor in wishes.asked if name == model}
    return dataclasses.replace(
        wishes,
        asked=frozenset(wishes.asked | asked),
        batches=_too(wishes.batches, model, variant),
        riders=_too(wishes.riders, model, variant),
        cuts=_too(wishes.cuts, model, variant),
    )


def _too(values: Mapping[str, T], model: str, variant: str) -> Mapping[str, T]:
    return {**values, variant: values[model]} if model in values else values
