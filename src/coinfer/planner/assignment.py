"""Assignment: the processors that a policy's own options name for models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coinfer.core.policy import Policy
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.profiling import Skip

__all__ = ["Pairs", "asked_for", "require_assigned"]

Pairs = frozenset[tuple[str, str]]
"""Names of models and processors."""


def asked_for(
    policy: Policy, models: Mapping[str, object], processors: Iterable[Processor]
) -> Pairs:
    """Return the (model, processor) pairs that the policy's own options name.

    Raises:
        UnknownNameError: a model or a processor that there is not.
        ConfigurationError: an assignment leaves a model out.
    """
    given = _assignment(policy)
    table: Mapping[str, Mapping[str, int]] = getattr(policy, "table", None) or {}
    pairs = {*given.items(), *((model, name) for name, row in table.items() for model in row)}
    known = [processor.name for processor in processors]
    for model, name in sorted(pairs):
        if model not in models:
            raise UnknownNameError.of("model in the policy's options", model, models)
        if name not in known:
            raise UnknownNameError.of("processor in the policy's options", name, known)
    for model in models if given else ():
        if model not in given:
            raise ConfigurationError(f"the policy's assignment has no processor for {model!r}")
    return frozenset(pairs)


def require_assigned(policy: Policy, allowed: Profile, skips: Iterable[Skip]) -> None:
    """Refuse an assignment to a processor that does not run the model.

    Args:
        policy: What may have an assignment.
        allowed: Everything that may run.
        skips: Why the rest may not.

    Raises:
        ConfigurationError: names both, and the reason if one is known.
    """
    reasons = {(skip.model, skip.processor): skip.reason for skip in skips}
    for model, name in _assignment(policy).items():
        if not any(key.model == model and key.processor == name for key, _ in allowed):
            why = reasons.get((model, name), "")
            raise ConfigurationError(
                f"the policy's assignment puts {model!r} on {name!r}, which does not run it"
                + (f": {why}" if why else "")
            )


def _assignment(policy: Policy) -> Mapping[str, str]:
    return getattr(policy, "assignment", None) or {}
