"""Residency: how much memory there is for what is loaded.

Rule: as much as is wished. If nothing is, and what is planned to be loaded does not fit into four
fifths of what this process may use, that is the budget. Where everything fits, there is none, nor
where models have variants: these are always loaded.
"""

from __future__ import annotations

import dataclasses

from coinfer.hardware.environment import memory_bytes
from coinfer.machine.memories import HOST, SHARE
from coinfer.opening import check_memory, fits
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
        if limit is None or plan.cheaper or fits(limited, plan.models):
            return plan
        plan = limited.warned(
            f"memory holds not all that is planned to be loaded at once: {format_bytes(limit)} are "
            f"there, of which models get {SHARE:.0%}; `memory` sets another budget"
        )
    check_memory(plan)
    return plan
