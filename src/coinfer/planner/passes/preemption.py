"""Preemption: whether urgent requests run on top of others, by priorities of threads or streams.

Rule: where that is left open, express processors stay if they can be of use: requests differ in
urgency, or nobody knows; some model takes a thread of its own; and, of those on cores, a thread of
the lowest priority gives way here, which is tried on a core. On a GPU streams have priorities,
which needs no trial. They cost nothing until they are used: only then threads of what is not urgent
get the lowest priority. Preempting is never worse for deadlines than waiting, and what is preempted
loses what the urgent requests take, no more (`docs/policies.md`).
"""

from __future__ import annotations

from coinfer.hardware.cores import available_cores
from coinfer.machine.memories import lowers_threads
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
    if why_not:
        return _left_out(plan, why_not)
    if any(lowers_threads(p) for p in plan.processors):
        why_not = why_not_lowered(available_cores()[0])
        on_gpus = {p.name for p in plan.processors if p.overlays and not lowers_threads(p)}
        if why_not and not on_gpus:
            return _left_out(plan, why_not)
        if why_not:
            rejected = (Alternative("express processors on cores", why_not),)
            choice = Choice("preemption", "urgent requests preempt, on GPUs", rejected)
            return _with_choice(plan.without_express(but=on_gpus), choice)
        where = "on all cores and GPUs" if on_gpus else "on all cores"
        return _with_choice(plan, Choice("preemption", f"urgent requests preempt, {where}"))
    return _with_choice(plan, Choice("preemption", "urgent requests preempt, on GPUs"))


def _left_out(plan: Plan, why_not: str) -> Plan:
    choice = Choice("preemption", "none", (Alternative("express processors", why_not),))
    return _with_choice(plan.without_express(), choice)


def _why_not(plan: Plan, planning: Planning) -> str:
    if planning.wishes.is_urgent is False:
        return "no request has a deadline, and all have the same priority"
    loaded = {name for each in plan.models.values() for name in each.original.spans}
    if plan.models and loaded.isdisjoint(twins(plan.processors).values()):
        return "nothing runs on a single core"
    return ""


def _with_choice(plan: Plan, choice: Choice) -> Plan:
    for name, model in plan.models.items():
        plan = plan.with_variant(name, model.original, choice)
    return plan
