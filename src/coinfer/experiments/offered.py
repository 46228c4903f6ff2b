"""The bound for what a scenario offers: its mix if it states one, else what was served."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from coinfer.bound import Bound, throughput_bound
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.metrics.counts import RunCounts
from coinfer.metrics.summary import MixOf
from coinfer.model import Model
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario

__all__ = ["Optimum", "offered_mix", "offered_optimum"]


class Optimum(NamedTuple):
    """The best that any schedule could reach, and for what.

    Attributes:
        bound: The best throughput, and how to reach it.
        mix_of: Whether it is for the mix that was offered or for the one that was served.
    """

    bound: Bound
    mix_of: MixOf


def offered_mix(scenario: Scenario, run_counts: RunCounts | None = None) -> dict[str, float] | None:
    """Return the share of each model in the requests; None if it is not known.

    Where a model has a closed loop of its own, the policy decides the shares: they are then those
    that were served, and unknown before a run.
    """
    mix = Load(scenario).offered_mix()
    return mix if mix is not None or run_counts is None else _served(run_counts)


def offered_optimum(
    profile: Profile,
    processors: Sequence[Processor],
    scenario: Scenario,
    run_counts: RunCounts | None = None,
    *,
    models: Mapping[str, Model] | None = None,
) -> Optimum | None:
    """Return the best throughput of any schedule for the offered mix, and how to reach it.

    It says nothing about a run that served other shares than were offered, because requests were
    dropped or still wait: more of what is quick can be served than of the mix. So it is for the mix
    that was served if more was served than could be of the offered one.

    Args:
        profile: Everything that was measured and may be used.
        processors: What may be used.
        scenario: What is offered.
        run_counts: What was served.
        models: By name; tells which of them have a fixed batch, so that a request is one run
            however many samples it has. Those not given have an open one.

    Returns:
        The optimum, or None if the mix is not known.

    Raises:
        ConfigurationError: a model that no processor runs.
    """
    fixed = {name for name, model in (models or {}).items() if model.batch_symbol is None}
    batches = {n: 1 if n in fixed else spec.batch for n, spec in scenario.models.items()}
    offered, served = offered_mix(scenario), None if run_counts is None else _served(run_counts)
    if offered is not None:
        bound = throughput_bound(profile, processors, offered, batches=batches)
        if _throughput_per_s(run_counts) <= bound.throughput_per_s:
            return Optimum(bound, "offered")
    if served is None:
        return None
    return Optimum(throughput_bound(profile, processors, served, batches=batches), "served")


def _served(run_counts: RunCounts) -> dict[str, float] | None:
    served = {
        name: float(counts.served) for name, counts in run_counts.models.items() if counts.served
    }
    return served or None


def _throughput_per_s(run_counts: RunCounts | None) -> float:
    if run_counts is None or not run_counts.duration_s:
        return -math.inf
    return sum(counts.served for counts in run_counts.models.values()) / run_counts.duration_s
