"""Surroundings: contention, cold starts, hand-over and submission, which only simulations need.

Rule: measured with whole models, where they are loaded whole: of a model that is cut, on the
processors that could run all of it. Not measured once the budget is spent: simulations then assume
that nothing slows anything down, and the plan says so.
"""

from __future__ import annotations

import dataclasses

from coinfer.backends.registry import find_backends
from coinfer.machine.memories import lowers_threads
from coinfer.machine.profile import Profile
from coinfer.machine.span import Span
from coinfer.plan.plan import Plan
from coinfer.planner.planning import Planning
from coinfer.profiling.cold import measure_cold
from coinfer.profiling.contention import measure_contention
from coinfer.profiling.deployment import Deployment

__all__ = ["surroundings", "whole_profile"]


def surroundings(plan: Plan, planning: Planning) -> Plan:
    """Measure what else a simulation needs, if it is wanted."""
    if not planning.wishes.surroundings:
        return plan
    from coinfer.experiments.handover import factors, handover  # needs the zoo
    from coinfer.experiments.submission import submission

    profiler = planning.profiler
    if profiler.budget.is_spent:
        return plan.warned(
            "contention and cold starts are not measured, because the time for measuring is spent; "
            "a simulation takes them for none"
        )
    deployment = Deployment(
        models=planning.models,
        processors=plan.processors,
        profile=whole_profile(plan),
        feeds=planning.samples,
        backends=find_backends(plan.processors, profiler.backends),
        cache=profiler.cache,
    )
    preempts = any(lowers_threads(processor) for processor in plan.processors)
    with profiler.budget.spending():
        handed_over = handover(profiler.cache)
        machine = dataclasses.replace(
            plan.machine,
            contention=measure_contention(deployment, profiler.progress, plan.machine.topology),
            cold=measure_cold(deployment, profiler.progress),
            overhead_s=handed_over.mean_s,
            overhead_factors=factors(handed_over.seconds),
            submission=submission(profiler.cache, preempts=preempts),
        )
    return dataclasses.replace(plan, machine=machine)


def whole_profile(plan: Plan) -> Profile:
    """Return where models run whole: of a model that is cut, what was measured of it uncut."""
    cut = {name: model.original.n_units for name, model in plan.models.items() if model.is_cut}
    uncut = {key: entry for key, entry in plan.profile if key.model not in cut}
    wholes = {
        key._replace(span=Span()): entry
        for key, entry in plan.measured
        if key.model in cut and key.span == Span(0, cut[key.model] - 1)
    }
    return Profile({**uncut, **wholes})
