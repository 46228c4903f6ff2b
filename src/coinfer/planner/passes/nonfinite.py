"""Nonfinite: warn once of where NaN and infinity come out otherwise than on the reference.

Rule: it is said of what is loaded. Some libraries take NaN for 0 in most networks, so it excludes a
processor only if that is asked for, or where the samples hold such numbers: `agreement`.
"""

from __future__ import annotations

from coinfer.plan.plan import Plan
from coinfer.planner.planning import Planning
from coinfer.profiling.reference import REFERENCE

__all__ = ["nonfinite"]


def nonfinite(plan: Plan, planning: Planning) -> Plan:
    """Add the warning, if there is something to warn of."""
    where = []
    for name, spoiling in planning.spoiling.items():
        loaded = [each for each in plan.models[name].original.spans if each in spoiling]
        if loaded:
            where.append(f"{name} on {', '.join(loaded)}")
    if not where:
        return plan
    return plan.warned(
        f"NaN or infinity in inputs come out otherwise than on {REFERENCE.backend}: "
        f"{'; '.join(where)}; `agreement: {{nonfinite: strict}}` leaves these out"
    )
