"""Frames of many networks at their rates, as a share of what a machine can do."""

from __future__ import annotations

from collections.abc import Mapping

from coinfer.bound import throughput_bound
from coinfer.machine.machine import Machine
from coinfer.workload.scenario import Scenario

__all__ = ["frames_at"]


def frames_at(
    machine: Machine, frames_per_s: Mapping[str, float], share: float, requests: int
) -> Scenario:
    """So many periodic requests of networks at a share of the bound; a deadline is a period."""
    bound = throughput_bound(machine.profile, machine.processors, frames_per_s)
    rates = {model: share * rate for model, rate in bound.per_model_per_s.items()}
    return Scenario.model_validate(
        {
            "models": {
                m: {"source": "zoo:lenet", "deadline": 1 / rate} for m, rate in frames_per_s.items()
            },
            "arrivals": {m: {"periodic": rate} for m, rate in rates.items()},
            "duration": requests / sum(rates.values()),
            "warmup": 0.0,
            "admission_limit": 10**9,
        }
    )
