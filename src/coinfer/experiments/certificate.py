"""Certificate: what no scheduler can exceed for a scenario on a machine, and what that means.

Puts a scenario's mix, rates or counts into the programs of `coinfer.bound`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from coinfer.bound import Bound, Makespan, makespan, sustainable_factor, throughput_bound
from coinfer.bound.capacity import NO_BATCHES, NO_FUSED, NO_VARIANTS, FusedModels, Variants
from coinfer.machine.machine import Machine
from coinfer.plan.work import Work
from coinfer.workload.load import Load
from coinfer.workload.request_shapes import NO_WORKS, shape_counts
from coinfer.workload.scenario import Scenario

__all__ = ["Certificate", "certify", "settled"]

_MOST_EXACT = 200
"""Counts above this in all: the integer program takes long, and the bound is as good as exact."""

_MAKESPAN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The limits of a scenario on a machine.

    Attributes:
        mix: Share of each model in the requests.
        mix_is_known: False if the policy decides the shares (every model has a closed loop of its
            own); the mix is then taken to be equal.
        bound: The best throughput for the mix.
        one_model: Processors that hold one model at a time.
        kept: The bound if those never change their model; None if there are none of them.
        sustainable_factor: The largest factor by which all rates may be multiplied; None unless
            all arrivals are open-loop.
        makespan: The least time for all counts; None unless they are finite, few and of one size.
    """

    mix: Mapping[str, float]
    mix_is_known: bool
    bound: Bound
    one_model: tuple[str, ...] = ()
    kept: Bound | None = None
    sustainable_factor: float | None = None
    makespan: Makespan | None = None

    def warnings(self) -> list[str]:
        """Say by how much the offered rates exceed what any schedule can do, if they do."""
        factor = self.sustainable_factor
        if factor is None or factor >= 1:
            return []
        return [
            f"the offered rates are {1 / factor - 1:.1%} above the bound: no schedule can serve "
            f"them; what waits grows until requests are rejected or late. Multiply the rates by at "
            f"most {factor:.3f}"
        ]

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json.dumps` writes."""
        return {
            **asdict(self.bound),
            "mix": dict(self.mix),
            "mix_is_known": self.mix_is_known,
            "sustainable_factor": self.sustainable_factor,
            "one_model": None
            if self.kept is None
            else {
                "processors": list(self.one_model),
                "throughput_per_s": self.kept.throughput_per_s,
                "shares": self.kept.shares,
            },
            "makespan": None if self.makespan is None else asdict(self.makespan),
        }


def certify(
    scenario: Scenario,
    machine: Machine,
    works: Mapping[str, Work] = NO_WORKS,
    together: Mapping[str, int] = NO_BATCHES,
    variants: Variants = NO_VARIANTS,
    fused: FusedModels = NO_FUSED,
) -> Certificate:
    """Compute the limits of a scenario on a machine.

    Args:
        scenario: What is asked for.
        machine: Where.
        works: How work grows with open dimensions, by model that has some.
        together: By variant, the samples that one execution may serve for several requests.
        variants: By model, the names of others that may answer its requests.
        fused: By fused variant, the models of which one run serves a request each.

    Raises:
        UnknownNameError: a model that no processor of the machine runs.
        ConfigurationError: processors that hold one model each cannot hold all models.
    """
    machine.check_runs(tuple(scenario.models))
    profile = machine.profile
    batches = {model: spec.batch for model, spec in scenario.models.items()}
    load = Load(scenario)
    known = load.offered_mix()
    mix = known or dict.fromkeys(scenario.models, 1 / len(scenario.models))
    one_model = tuple(p.name for p in machine.processors if p.name in machine.swaps | machine.keeps)
    rates = load.offered_rates_per_s()
    processors, keeps = machine.processors, machine.keeps
    shapes = shape_counts(scenario, works)
    limit = partial(
        throughput_bound,
        profile,
        processors,
        mix,
        batches=batches,
        shapes=shapes,
        together=together,
        variants=variants,
        fused=fused,
    )
    return Certificate(
        mix=mix,
        mix_is_known=known is not None,
        bound=limit(one_model=keeps),
        one_model=one_model,
        kept=limit(one_model=set(one_model)) if one_model else None,
        sustainable_factor=sustainable_factor(
            profile,
            processors,
            rates,
            batches=batches,
            shapes=shapes,
            together=together,
            variants=variants,
            fused=fused,
            one_model=keeps,
        )
        if rates
        else None,
        makespan=None
        if shapes or together or fused
        else _makespan(scenario, machine, batches, variants),
    )


def settled(machine: Machine, certificate: Certificate) -> Machine:
    """Let processors that never change their model hold the one that the bound gives them."""
    resident = {}
    for name in machine.keeps:
        shares = certificate.bound.shares.get(name, {})
        runs = [key.model for key, _ in machine.profile if key.processor == name]
        if len(set(runs)) > 1:
            resident[name] = max(shares, key=shares.__getitem__, default=runs[0])
    return machine.holding(resident)


def _makespan(
    scenario: Scenario, machine: Machine, batches: Mapping[str, int], variants: Variants
) -> Makespan | None:
    offline = scenario.offline
    if offline is None or sum(offline.counts.values()) > _MOST_EXACT:
        return None
    return makespan(
        machine.profile,
        machine.processors,
        offline.counts,
        batches=batches,
        variants=variants,
        one_model=machine.keeps,
        time_limit_s=_MAKESPAN_S,
    )
