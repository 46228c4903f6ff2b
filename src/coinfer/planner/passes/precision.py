"""Precision: what may run below fp32, by its measured output error and the tolerance.

Rule: below fp32 a model runs on a processor only if its output error ||out - ref|| / ||ref|| on the
sample inputs, against fp32, is within the tolerance. What was not measured does not run there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coinfer.errors import ConfigurationError
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.plan.choice import Alternative, Choice
from coinfer.plan.plan import Plan
from coinfer.planner.planning import Planning
from coinfer.profiling import Skip
from coinfer.profiling.error import too_imprecise

__all__ = ["precision"]


def precision(plan: Plan, planning: Planning) -> Plan:
    """Take out what is not precise enough.

    Raises:
        ConfigurationError: a model runs nowhere precisely enough.
    """
    wishes = planning.wishes
    named = {processor.name: processor for processor in plan.processors}
    reasons = {
        key: too_imprecise(key.model, named[key.processor], entry.error, wishes.tolerance)
        for key, entry in plan.measured
    }
    allowed = plan.measured.where(lambda key: reasons[key] is None)
    refusals = [Skip(k.model, k.processor, why) for k, why in reasons.items() if why is not None]
    _require_precise(planning.whole, allowed, refusals)
    planning.skips += refusals
    for name in {skip.model: None for skip in refusals}:
        lost = [Alternative(s.processor, s.reason) for s in refusals if s.model == name]
        choice = Choice("precision", f"within {wishes.tolerance:g}", tuple(lost))
        plan = plan.with_variant(name, plan.models[name].original, choice)
    notes = [skip.reason for skip in refusals]
    notes += _unavailable(wishes.allow, plan.processors)
    return plan.with_profile(allowed).loading(allowed).warned(*notes)


def _require_precise(models: Iterable[str], allowed: Profile, refusals: Sequence[Skip]) -> None:
    for name in models:
        if name not in allowed.models():
            reasons = "; ".join(skip.reason for skip in refusals if skip.model == name)
            raise ConfigurationError(
                f"no processor runs model {name!r} precisely enough: {reasons}; raise the "
                "tolerance or add a processor in fp32"
            )


def _unavailable(allowed: Iterable[str], processors: Iterable[Processor]) -> list[str]:
    """Say which of the allowed precisions no processor here has."""
    found = {processor.precision for processor in processors}
    return [
        f"{each} is allowed but no device here reports it; nothing runs in it"
        for each in allowed
        if each not in found
    ]
