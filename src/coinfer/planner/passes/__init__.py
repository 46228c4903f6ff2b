"""Passes: the steps of planning, in order. Each takes a plan and returns one with its reasons.

A pass is one file with its rule and source in the docstring and one function
`(plan, planning) -> plan`.
"""

from __future__ import annotations

from collections.abc import Callable

from coinfer.plan.plan import Plan
from coinfer.planner.passes import (
    agreement,
    batching,
    compress,
    fusing,
    measure,
    nonfinite,
    partition,
    policy,
    precision,
    preemption,
    residency,
    surroundings,
    threads,
    variants,
    worth_loading,
)
from coinfer.planner.planning import Planning

__all__ = ["PASSES", "Pass"]

Pass = Callable[[Plan, Planning], Plan]

PASSES: tuple[Pass, ...] = (
    compress.compress,
    measure.measure,
    precision.precision,
    agreement.agreement,
    partition.partition,
    worth_loading.worth_loading,
    threads.threads,
    nonfinite.nonfinite,
    preemption.preemption,
    surroundings.surroundings,
    batching.batching,
    variants.variants,
    fusing.fusing,
    residency.residency,
    policy.policy,
)
