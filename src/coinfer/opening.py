"""Opening events: what a plan tells the core of its models. Engine and simulator both ask here."""

from __future__ import annotations

from coinfer.core.events import FusedLoaded, LoadedVariant, ModelLoaded
from coinfer.machine.profile import Profile
from coinfer.plan.plan import Plan

__all__ = ["fused_loaded", "model_loaded"]


def model_loaded(plan: Plan, model: str, profile: Profile) -> ModelLoaded:
    """Return the event that a model of a plan can be run.

    Args:
        plan: The plan.
        model: Name of one of its models.
        profile: The times of what is loaded, of this model with its variants at least.

    >>> from coinfer.machine.machine import Machine
    >>> from coinfer.machine.processor import Processor
    >>> cpu = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
    >>> profile = Profile.from_seconds({"m": {"cpu": 0.01}})
    >>> model_loaded(Plan.of(Machine(processors=(cpu,), profile=profile)), "m", profile).units
    1
    """
    planned, known = plan.models[model], profile.restricted([model])
    variant, swap_s = planned.original, plan.machine.swap_s(model)
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
        model, variant.n_units, known, variant.forks, swap_s, planned.batching, others
    )


def fused_loaded(plan: Plan, name: str, profile: Profile) -> FusedLoaded:
    """Return the event that a fused variant of a plan can be run; its members can be before.

    Args:
        plan: The plan.
        name: Name of one of its fused variants.
        profile: The times of what is loaded, of this variant at least.
    """
    return FusedLoaded(name, plan.fused[name].models, profile.restricted([name]))
