"""Residency: how much memory there is for what is loaded.

Rule: as much as is wished. If nothing is, and what is planned to be loaded into a memory does not
fit into four fifths of what this process may use of it, that is its budget. Where everything fits,
there is none. It comes last, since what all other passes add must be loaded. Where a model has no
room for the activations of its largest batch, its batches are halved until it has. A fused variant
that has no room even alone is left out.
"""

from __future__ import annotations

import dataclasses
import math

from coinfer.backends.base import device_use
from coinfer.backends.registry import find_backends
from coinfer.hardware.environment import memory_bytes
from coinfer.machine.memories import HOST, SHARE, memory_of
from coinfer.opening import check_memory, fits, loadables, too_large, wanted
from coinfer.plan.choice import Choice
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
        limits = {HOST: memory_bytes(), **_of_devices(plan, planning)}
        for name, limit in limits.items():
            budget = int(SHARE * (limit or 0))
            if limit is None or fits(dataclasses.replace(plan, memory={name: budget}), plan.models):
                continue
            what = "memory" if name == HOST else f"memory of {name}"
            plan = dataclasses.replace(plan, memory={**plan.memory, name: budget}).warned(
                f"{what} holds not all that is planned to be loaded at once: {format_bytes(limit)} "
                f"are there, of which models get {SHARE:.0%}; `memory` sets another budget"
            )
        if not plan.memory:
            return plan
    plan = _with_smaller_batches(plan)
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


def _with_smaller_batches(plan: Plan) -> Plan:
    """Let fewer requests share executions of models that are too large for the memory so."""
    while True:
        served = [(model, *wanted(plan, model)) for model in too_large(plan)]
        batchings = plan.batchings
        batched = [each for each in served if each[1] in batchings]
        if not batched:
            return plan
        for model, name, variant in batched:
            batching = batchings[name]
            most = batching.most // 2
            by_unit = tuple(min(most, each) for each in batching.by_unit)
            what = f"at most {most}: of more, activations have no room in `memory`"
            is_left = most >= 2 * plan.models[model].batch
            choice = Choice("residency", what if is_left else f"none: {what}")
            smaller = batching._replace(most=most, by_unit=by_unit) if is_left else None
            if name == model:
                plan = plan.with_batching(model, smaller, choice)
            else:
                variant = dataclasses.replace(variant, batching=smaller)
                plan = plan.with_variant(model, variant, choice)


def _of_devices(plan: Plan, planning: Planning) -> dict[str, int | None]:
    """Return what this process may use of the memories that are not the host's; None: not known."""
    found: dict[str, int | None] = {}
    backends = find_backends(plan.processors, planning.profiler.backends)
    for processor in plan.processors:
        name = memory_of(processor)
        if name != HOST and found.get(name) is None:
            use = device_use(backends[processor.backend], processor.device)
            found[name] = None if use is None else use.usable_bytes
    return found
