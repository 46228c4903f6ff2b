"""Shortening: the beginning of a scenario's load, by the number of requests. Simulates nothing."""

from __future__ import annotations

import math

from coinfer.experiments.certificate import certify
from coinfer.plan.plan import Plan
from coinfer.workload.load import Load
from coinfer.workload.scenario import OfflineArrivals, Scenario

__all__ = ["most_requests", "shortened"]

_WARMUP_SHARE = 0.1
"""Of a shortened load, what is not counted at most."""


def most_requests(scenario: Scenario, plan: Plan) -> float:
    """Return how many requests a scenario has; what closed loops ask for is bounded by the plan.

    Args:
        scenario: The load.
        plan: What serves it.
    """
    if scenario.offline is not None:
        return sum(scenario.offline.counts.values())
    rates = Load(scenario).open_rates_per_s()
    loops_per_s = 0.0
    if len(rates) < len(scenario.models):
        certificate = certify(
            scenario, plan.machine, plan.works, plan.together, plan.cheaper, plan.fused_models
        )
        loops_per_s = certificate.bound.throughput_per_s
    return (sum(rates.values()) + loops_per_s) * scenario.end_s


def shortened(scenario: Scenario, share: float) -> Scenario:
    """Copy a scenario with the beginning of its load.

    Args:
        scenario: The load.
        share: How much of it, above 0; 1 and more is all of it.
    """
    if share >= 1:
        return scenario
    if scenario.offline is not None:
        counts = {name: math.ceil(n * share) for name, n in scenario.offline.counts.items()}
        offline = scenario.offline.model_copy(update={"counts": counts})
        return scenario.model_copy(update={"arrivals": OfflineArrivals(offline=offline)})
    end_s = share * scenario.end_s
    warmup_s = min(scenario.warmup_s, _WARMUP_SHARE * end_s)
    return scenario.model_copy(update={"warmup_s": warmup_s, "duration_s": end_s - warmup_s})
