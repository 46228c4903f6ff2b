"""Precision: what may run below fp32, by its measured output error and the scenario's tolerance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coinfer.errors import ConfigurationError
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.profiling import Skip
from coinfer.profiling.error import too_imprecise
from coinfer.workload.processor_spec import PrecisionSpec

__all__ = ["precise_enough", "require_precise", "unavailable"]


def precise_enough(
    measured: Profile, processors: Iterable[Processor], tolerance: float | None
) -> tuple[Profile, list[Skip]]:
    """Split what was measured into what may run and why the rest may not.

    Args:
        measured: With output errors of what runs below fp32; without one, it may not run.
        processors: All that the profile names.
        tolerance: Largest output error; None: there must be none.
    """
    named = {processor.name: processor for processor in processors}
    refusals = {}
    for key, entry in measured:
        reason = too_imprecise(key.model, named[key.processor], entry.error, tolerance or 0.0)
        if reason is not None:
            refusals[key] = Skip(key.model, key.processor, reason)
    kept = {key: entry for key, entry in measured if key not in refusals}
    return Profile(kept), list(refusals.values())


def require_precise(models: Iterable[str], allowed: Profile, refusals: Sequence[Skip]) -> None:
    """Refuse models that run nowhere precisely enough.

    Raises:
        ConfigurationError: names the first such model and every reason.
    """
    for name in models:
        if name not in allowed.models():
            reasons = "; ".join(skip.reason for skip in refusals if skip.model == name)
            raise ConfigurationError(
                f"no processor runs model {name!r} precisely enough: {reasons}; raise the "
                "tolerance or add a processor in fp32"
            )


def unavailable(allowed: PrecisionSpec, processors: Iterable[Processor]) -> list[str]:
    """Say which of the allowed precisions no processor here has."""
    found = {processor.precision for processor in processors}
    return [
        f"{precision} is allowed but no device here reports it; nothing runs in it"
        for precision in allowed.allow
        if precision not in found
    ]
