"""The bound for what a scenario offers: its mix if it states one, else what was served."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from coinfer.bound import Bound, throughput_bound
from coinfer.bound.capacity import NO_BATCHES, NO_FUSED, NO_VARIANTS, FusedModels, Variants
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.metrics.counts import RunCounts
from coinfer.metrics.summary import MixOf
from coinfer.plan.work import Work
from coinfer.workload.load import Load
from coinfer.workload.request_shapes import NO_WORKS, shape_counts
from coinfer.workload.scenario import Scenario

__all__ = ["Optimum", "offered_optimum"]


class Optimum(NamedTuple):
    """The best that any schedule could reach, and for what.

    Attributes:
        bound: The best throughput, and how to reach it.
        mix_of: Whether it is for the mix that was offered or for the one that was served.
    """

    bound: Bound
    mix_of: MixOf

    def within(self, least_load_s: float | None) -> float:
        """Return the best throughput if loading takes at least so many seconds per request."""
        limit = self.bound.throughput_per_s
        return min(limit, 1 / least_load_s) if least_load_s else limit


def offered_optimum(
    profile: Profile,
    processors: Sequence[Processor],
    scenario: Scenario,
    run_counts: RunCounts | None = None,
    works: Mapping[str, Work] = NO_WORKS,
    together: Mapping[str, int] = NO_BATCHES,
    variants: Variants = NO_VARIANTS,
    fused: FusedModels = NO_FUSED,
) -> Optimum | None:
    """Return the best throughput of any schedule for the offered mix, and how to reach it.

    It says nothing about a run that served other shares than were offered, because requests were
    dropped or still wait: more of what is quick can be served than of the mix. So it is for the mix
    that was served if more was served than could be of the offered one.

    Args:
        profile: Everything that was measured and may be used.
        processors: What may be used.
        scenario: What is offered.
        run_counts: What was served. It is the mix where a model has a closed loop of its own, since
            the policy then decides the shares; before a run they are unknown.
        works: How work grows with open dimensions, by model that has some.
        together: By variant, the samples that one execution may serve for several requests.
        variants: By model, the names of others that may answer its requests.
        fused: By fused variant, the models of which one run serves a request each.

    Returns:
        The optimum, or None if the mix is not known.

    Raises:
        ConfigurationError: a model that no processor runs.
    """
    batches = {name: spec.batch for name, spec in scenario.models.items()}
    limit = partial(
        throughput_bound,
        profile,
        processors,
        batches=batches,
        shapes=shape_counts(scenario, works),
        together=together,
        variants=variants,
        fused=fused,
    )
    offered = Load(scenario).offered_mix()
    if offered is not None:
        bound = limit(offered)
        if _throughput_per_s(run_counts) <= bound.throughput_per_s:
            return Optimum(bound, "offered")
    served = {} if run_counts is None else _served(run_counts)
    if not served:
        return None
    return Optimum(limit(served), "served")


def _served(run_counts: RunCounts) -> dict[str, float]:
    return {name: float(each.served) for name, each in run_counts.models.items() if each.served}


def _throughput_per_s(run_counts: RunCounts | None) -> float:
    if run_counts is None or not run_counts.duration_s:
        return -math.inf
    return sum(counts.served for counts in run_counts.models.values()) / run_counts.duration_s
