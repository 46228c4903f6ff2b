"""Residency: how much memory there is for what is loaded.

Rule: as much as is wished. If nothing is, and what is planned to be loaded does not fit into four
fifths of what this process may use, that is the budget. Where everything fits, there is none. It
comes last, since what all other passes add must be loaded. A fused variant that has no room even
alone is left out.
"""

from __future__ import annotations

import dataclasses
import math

from coinfer.hardware.environment import memory_bytes
from coinfer.machine.memories import HOST, SHARE
from coinfer.opening import check_memory, fits, loadables
from coinfer.plan.plan import Plan
from coinfer.planner.planning import Planning
from coinfer.units import format_bytes

__all__ = ["residency"]


def residency(plan: Plan, planning: Planning) -> Plan:
    """Set the budgets, and see that each model can run within them.

    Raises:
        ConfigurationError: one cannot; the message says how much it needs.
    """
    if not planning.wishes.memory:
        limit = memory_bytes()
        limited = dataclasses.replace(plan, memory={HOST: int(SHARE * (limit or 0))})
        if limit is None or fits(limited, plan.models):
            return plan
        plan = limited.warned(
            f"memory holds not all that is planned to be loaded at once: {format_bytes(limit)} are "
            f"there, of which models get {SHARE:.0%}; `memory` sets another budget"
        )
    check_memory(plan)
    for name in list(plan.fused):
        places = loadables(plan, name, plan.profile)
        large = [p.size_bytes for p in places if p.size_bytes > plan.memory.get(p.pool, math.inf)]
        if len(large) == len(places):
            members = ", ".join(plan.fused[name].models)
            plan = plan.without_fused(name).warned(
                f"{members} are not fused: together they need {format_bytes(max(large))}, more "
                "than `memory` has"
            )
    return plan
