"""Cold starts of fused variants: not measured, but made of those of their members. Pure."""

from __future__ import annotations

import statistics

from coinfer.machine.cold import Cold
from coinfer.machine.machine import Machine
from coinfer.plan.plan import Plan

__all__ = ["fused_cold"]


def fused_cold(plan: Plan, machine: Machine) -> dict[tuple[str, str], Cold]:
    """Return how much longer fused variants take after another model, and after a rest.

    After another model the weights of all members must be read anew, so what the members lose adds
    up; those of which it is not known lose what the others do on average. After a rest clocks and
    threads wake up once.

    Args:
        plan: With fused variants.
        machine: The plan's, equipped.
    """
    found = {}
    for name, fused in plan.fused.items():
        for processor in (p.name for p in machine.processors):
            mean_s = machine.profile.expected_s(name, processor, batch=fused.batch)
            lost = [
                ((cold.after_other - 1.0) * seconds, (cold.after_idle - 1.0) * seconds)
                for member in fused.models
                if (cold := machine.cold.get((member, processor))) is not None
                and (seconds := machine.profile.expected_s(member, processor)) is not None
            ]
            if mean_s is None or not lost or (name, processor) in machine.cold:
                continue
            other_s = len(fused.models) * statistics.fmean(each for each, _ in lost)
            idle_s = max(each for _, each in lost)
            found[name, processor] = Cold(1.0 + other_s / mean_s, 1.0 + idle_s / mean_s)
    return found
