"""Fixed mapping: the best assignment of models to processors for good. What no scheduler needs."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

from coinfer.machine.processor import ordinary
from coinfer.machine.span import Span
from coinfer.plan.plan import Plan
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario

__all__ = ["best_mapping"]

_MOST_MAPPINGS = 200_000
"""More are not tried: a second or two."""


def best_mapping(scenario: Scenario, plan: Plan) -> dict[str, str] | None:
    """Find the assignment whose busiest compute unit is least busy, by trying all.

    Args:
        scenario: Tells how often each model is asked for; all are asked for equally often where
            closed loops leave that to the policy.
        plan: Tells where models are loaded, and how long they take there.

    Returns:
        The processor by model; None if there are too many assignments to try, or a model runs
        nowhere as a whole.
    """
    load = Load(scenario)
    rates = load.offered_rates_per_s() or load.offered_mix() or dict.fromkeys(scenario.models, 1.0)
    profile, units = plan.profile, {p.name: p.units for p in ordinary(plan.processors)}
    able: dict[str, dict[str, float]] = {}
    for model, spec in scenario.models.items():
        whole = Span(0, plan.models[model].original.n_units - 1)
        found = {
            name: profile.expected_s(model, name, batch=spec.batch, span=whole) for name in units
        }
        able[model] = {name: s for name, s in found.items() if s is not None}
    if not 0 < math.prod(map(len, able.values())) <= _MOST_MAPPINGS:
        return None
    best: tuple[float, tuple[str, ...]] = (math.inf, ())
    for choice in product(*able.values()):
        busy: Counter[str] = Counter()
        for model, name in zip(able, choice, strict=True):
            for unit in units[name]:
                busy[unit] += rates[model] * able[model][name]  # type: ignore[assignment]
        best = min(best, (max(busy.values()), choice))
    return dict(zip(able, best[1], strict=True))
