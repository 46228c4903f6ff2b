"""Least loading: how long any schedule of a scenario loads per request, within a plan's memory.

Puts a plan's places and a scenario's requests into the program of `coinfer.bound.loading`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import islice

from coinfer.bound.loading import Part, least_loading_s, phases_of
from coinfer.core.request import OnLate
from coinfer.machine.profile import Profile
from coinfer.opening import check_memory, fits, loadables
from coinfer.plan.plan import Plan
from coinfer.workload.rotation import rotation
from coinfer.workload.scenario import Scenario

__all__ = ["least_loading"]

_SEQUENCE = 4096
"""Requests of an endless load that are looked at: its models take turns with a shorter period."""

_PHASES = (2, 4, 8, 16, 32, 64, 128)
"""Lengths of phases that are tried, as multiples of the requests in flight."""


def least_loading(
    plan: Plan, scenario: Scenario, served: Mapping[str, int] | None = None
) -> float | None:
    """Return the least seconds of loading per request; None if no memory has a budget.

    Where a fixed number of requests is in flight and none may be dropped, models take turns as the
    scenario says, and a schedule can choose among those in flight only. Otherwise it may serve all
    requests of a model before those of the next one, and each model is loaded once at most.

    Args:
        plan: What can be loaded, and how long that takes.
        scenario: What is asked for.
        served: Requests by model that were served; None: those that are asked for, if their number
            is known.

    Raises:
        ConfigurationError: a model cannot run within the memory.
    """
    if not plan.memory:
        return None
    check_memory(plan)
    models = [model for model in plan.models if model in scenario.models]
    if fits(plan, models):
        return 0.0
    parts, budgets = _parts(plan, models), {name: float(b) for name, b in plan.memory.items()}
    found = 0.0
    if served is None and scenario.offline is not None:
        served = scenario.offline.counts
    if served and (total := sum(served.values())):
        found = least_loading_s(parts, budgets, [served]) / total
    if scenario.mix is not None and _serves_all(scenario, scenario.mix.in_flight):
        weights = scenario.mix.weights or dict.fromkeys(scenario.models, 1.0)
        sequence = list(islice(rotation(weights), _SEQUENCE))
        in_flight = scenario.mix.in_flight
        for length in (times * in_flight for times in _PHASES):
            phases = phases_of(sequence, length)
            if phases:
                least_s = least_loading_s(parts, budgets, phases, in_flight - 1)
                found = max(found, least_s / (len(phases) * length))
    return found


def _serves_all(scenario: Scenario, in_flight: int) -> bool:
    """Tell whether no request is ever refused or dropped."""
    most = scenario.limits.max_waiting
    return (most is None or in_flight <= most) and all(
        spec.deadline_s is None or spec.on_late is not OnLate.DROP
        for spec in scenario.models.values()
    )


def _parts(plan: Plan, models: Sequence[str]) -> dict[str, list[list[Part]]]:
    """Return what can be loaded of each model, as it is and of its variants."""
    profile = plan.profile
    return {
        model: [_way(plan, name, profile) for name in plan.serving(model) or [model]]
        for model in models
    }


def _way(plan: Plan, model: str, profile: Profile) -> list[Part]:
    found = []
    for each in loadables(plan, model, profile):
        if each.size_bytes > plan.memory.get(each.pool, math.inf):
            continue  # nothing can ever load it
        key: Hashable = (each.content or f"\0{model}", each.span, each.processors[0])
        span = each.span
        found.append(Part(span.first, span.last, key, each.pool, each.size_bytes, each.load_s))
    return found
