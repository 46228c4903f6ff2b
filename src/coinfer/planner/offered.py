"""The bound for what a scenario offers: its mix if it states one, else what was served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coinfer.bound import Bound, throughput_bound
from coinfer.metrics.tally import Tallies
from coinfer.model import Model
from coinfer.processor import Processor
from coinfer.profiles import Profile
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario

__all__ = ["offered_bound", "offered_mix", "offered_optimum"]


def offered_mix(scenario: Scenario, tallies: Tallies | None = None) -> dict[str, float] | None:
    """Return the share of each model in the requests; None if it is not known.

    Where every model has its own closed loop, the policy decides the shares: they are then those
    that were served, and unknown before a run.
    """
    mix = Load(scenario).offered_mix()
    if mix is not None or tallies is None:
        return mix
    served = {name: float(tally.served) for name, tally in tallies.models.items() if tally.served}
    return served or None


def offered_bound(
    profile: Profile,
    processors: Sequence[Processor],
    scenario: Scenario,
    tallies: Tallies | None = None,
    *,
    models: Mapping[str, Model] | None = None,
) -> float | None:
    """Return the best throughput of any schedule for the offered mix, in requests per second.

    Arguments and errors as `offered_optimum`; None if the mix is not known.
    """
    optimum = offered_optimum(profile, processors, scenario, tallies, models=models)
    return None if optimum is None else optimum.throughput_per_s


def offered_optimum(
    profile: Profile,
    processors: Sequence[Processor],
    scenario: Scenario,
    tallies: Tallies | None = None,
    *,
    models: Mapping[str, Model] | None = None,
) -> Bound | None:
    """Return the best throughput of any schedule for the offered mix, and how to reach it.

    Args:
        profile: Everything that was measured and may be used.
        processors: What may be used.
        scenario: What is offered.
        tallies: What was served, where the scenario does not state the mix.
        models: By name; tells which of them have a fixed batch, so that a request is one run
            however many samples it has. Those not given have an open one.

    Returns:
        The bound, or None if the mix is not known.

    Raises:
        ConfigurationError: a model that no processor runs.
    """
    mix = offered_mix(scenario, tallies)
    if mix is None:
        return None
    fixed = {name for name, model in (models or {}).items() if model.batch_symbol is None}
    batches = {n: 1 if n in fixed else spec.batch for n, spec in scenario.models.items()}
    return throughput_bound(profile, processors, mix, batches=batches)
