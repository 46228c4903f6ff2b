"""Policy candidates: every registered policy, with the options that make sense for a scenario."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from coinfer.errors import CallerError
from coinfer.experiments.fixed_mapping import best_mapping
from coinfer.plan.choice import Alternative
from coinfer.plan.plan import Plan, PolicyChoice
from coinfer.policies import make_policy, policy_names
from coinfer.workload.scenario import Scenario

__all__ = ["candidates"]

_PATIENCE = {"patience_s": 1.0}

_OPTIONS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "earliest_finish": ({"foresee": False},),
    "min_min": (_PATIENCE,),
    "priority": ({"ageing_s": math.inf},),
    "sjf": (_PATIENCE,),
    "sufferage": (_PATIENCE,),
    "two_queues": (
        {"deadline": "edf", "best_effort": "comparative_advantage"},
        {"deadline": "earliest_finish", "best_effort": "comparative_advantage"},
    ),
}
"""By policy, what is tried beside its defaults: what changes the rule itself, not its constants."""


def candidates(scenario: Scenario, plan: Plan) -> tuple[list[PolicyChoice], list[Alternative]]:
    """Return what may decide in a scenario, the default first, and what may not with the reason.

    Policies that other packages register are there with their default options. `fixed` is there
    with the mapping whose busiest processor is least busy, unless there are too many to try.
    """
    default = PolicyChoice()
    found, refused = [default], []
    for name in policy_names():
        for options in _options(name, scenario, plan):
            choice = PolicyChoice(name=name, options=options)
            try:
                make_policy(name, **options)
            except CallerError as error:
                refused.append(Alternative(choice.text, str(error)))
            else:
                found += [choice] if choice != default else []
    return found, refused


def _options(name: str, scenario: Scenario, plan: Plan) -> Sequence[Mapping[str, Any]]:
    """Return the sets of options under which a policy is tried."""
    if name != "fixed":
        return ({}, *_OPTIONS.get(name, ()))
    mapping = best_mapping(scenario, plan)
    return () if mapping is None else ({"assignment": mapping},)
