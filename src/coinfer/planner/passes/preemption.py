"""Preemption: whether urgent requests run on top of others, by the system's priorities.

Rule: where that is left open, express processors stay if they can be of use: requests differ in
urgency, or nobody knows; a thread of the lowest priority gives way here, which is tried on a core;
and some model takes a thread of its own. They cost nothing until they are used: only then threads
of what is not urgent get the lowest priority. Preempting is never worse for deadlines than waiting,
and what is preempted loses what the urgent requests take, no more (`docs/policies.md`).
"""

from __future__ import annotations

from coinfer.hardware.cores import available_cores
from coinfer.machine.processor import twins
from coinfer.plan.choice import Alternative, Choice
from coinfer.plan.plan import Plan
from coinfer.planner.planning import Planning
from coinfer.threads.priority import why_not_lowered

__all__ = ["preemption"]


def preemption(plan: Plan, planning: Planning) -> Plan:
    """Leave express processors out where they are of no use."""
    if planning.wishes.preempt != "auto" or not any(p.overlays for p in plan.processors):
        return plan
    why_not = _why_not(plan, planning)
    if not why_not:
        return _with_choice(plan, Choice("preemption", "urgent requests preempt, on all cores"))
    choice = Choice("preemption", "none", (Alternative("express processors", why_not),))
    return _with_choice(plan.without_express(), choice)


def _why_not(plan: Plan, planning: Planning) -> str:
    if planning.wishes.is_urgent is False:
        return "no request has a deadline, and all have the same priority"
    loaded = {name for each in plan.models.values() for name in each.original.spans}
    if plan.models and loaded.isdisjoint(twins(plan.processors).values()):
        return "nothing runs on a single core"
    return why_not_lowered(available_cores()[0])


def _with_choice(plan: Plan, choice: Choice) -> Plan:
    for name, model in plan.models.items():
        plan = plan.with_variant(name, model.original, choice)
    return plan
