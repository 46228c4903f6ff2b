"""Keepable: whether any of several policies keeps a scenario's deadlines, and at which rates."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from coinfer.errors import ConfigurationError
from coinfer.experiments.certificate import certify
from coinfer.experiments.promises import IN_TIME
from coinfer.experiments.saturation import (
    Kept,
    Quality,
    Trial,
    find_saturation,
    on_machine,
)
from coinfer.experiments.shortening import most_requests, shortened
from coinfer.metrics.counts import RunCounts
from coinfer.plan.plan import Plan, PolicyChoice
from coinfer.units import format_seconds
from coinfer.workload.deadline import PERIOD
from coinfer.workload.scenario import PolicySpec, Scenario

__all__ = ["why_not_kept"]

_TRIALS = 12
"""That a search takes, about."""
_PRECISION = 0.03


def why_not_kept(
    scenario: Scenario, ways: Sequence[tuple[PolicyChoice, Plan]], budget: int
) -> str | None:
    """Say that no policy keeps a scenario's deadlines, at which rates one would, and what breaks.

    Args:
        scenario: What is to be served, as it is run.
        ways: The policies, the best one first, each with the plan that it is to decide in.
        budget: How many requests may be simulated, roughly.

    Returns:
        A sentence; None if one of them keeps them, or nothing has a deadline.
    """
    timed = [name for name, spec in scenario.models.items() if spec.deadline is not None]
    if not timed:
        return None
    in_all = most_requests(scenario, ways[0][1])
    piece = shortened(scenario, budget / _TRIALS / len(ways) / in_all) if in_all else scenario
    trials = _BestOf(ways, timed, budget)
    shares = _shares(timed, trials(piece))
    worst = min(shares, key=shares.__getitem__, default="")
    if not worst or shares[worst] >= IN_TIME.least:
        return None
    text = (
        f"no policy keeps the deadlines: {IN_TIME.least:.0%} of them should be met in every "
        f"model, and of those of {worst} the best one meets {shares[worst]:.1%}"
    )
    plan = ways[0][1]
    for name in timed:
        if scenario.models[name].deadline != PERIOD and (why := _too_short(scenario, plan, name)):
            return f"{text}: {why} at any rates"
    if why := _too_short(scenario, plan, worst):
        text += f": {why}, one period"
    try:
        kept = Kept.of(piece, quality=Quality.HIT_RATE, least=IN_TIME.least)
    except ConfigurationError:  # closed loops have no rate
        return f"{text}; give it more time, or less to do"
    return f"{text}. {_remedy(piece, kept, trials, plan)}"


@dataclass(slots=True)
class _BestOf:
    """Simulates under each way; returns what came of the one whose worst model fared best.

    Attributes:
        ways: Policies with their plans.
        timed: The models that count.
        budget: Requests that may be simulated. Closed loops ask for more and more of them the
            longer others take to ask for theirs.
        chosen: By factor on the rates, the policy that it was.
    """

    ways: Sequence[tuple[PolicyChoice, Plan]]
    timed: Sequence[str]
    budget: int
    chosen: dict[float, str] = field(default_factory=dict)

    def __call__(self, scenario: Scenario) -> RunCounts:
        found: list[tuple[float, RunCounts]] = []
        for choice, plan in self.ways:
            if self.budget <= 0:
                raise _SpentError
            spec = PolicySpec(name=choice.name, options=choice.options)
            counts = on_machine(plan)(scenario.model_copy(update={"policy": spec}))
            self.budget -= sum(each.submitted for each in counts.models.values())
            found.append((min(_shares(self.timed, counts).values(), default=1.0), counts))
            if found[-1][0] >= IN_TIME.least:
                break
        best = max(range(len(found)), key=lambda at: found[at][0])
        self.chosen[scenario.rate_factor] = self.ways[best][0].text
        return found[best][1]


class _SpentError(Exception):
    """The budget is spent."""


def _least_s(plan: Plan, model: str) -> float:
    """Return the least seconds that an answer takes; 0 where steps of a cut model add up to it."""
    if plan.models[model].is_cut:
        return 0.0
    entries = plan.profile.restricted(plan.serving(model)).at_smallest
    return min((entry.mean_s for key, entry in entries), default=0.0)


def _too_short(scenario: Scenario, plan: Plan, model: str) -> str:
    """Say that a deadline is shorter than any answer takes; empty if it is not."""
    least_s, deadline_s = _least_s(plan, model), scenario.models[model].deadline_s or 0.0
    if least_s <= deadline_s:
        return ""
    least, deadline = format_seconds(least_s), format_seconds(deadline_s)
    return f"{model} takes at least {least}, and its deadline is {deadline}"


def _shares(models: Sequence[str], run_counts: RunCounts) -> dict[str, float]:
    shares = {name: IN_TIME.share(name, run_counts) for name in models}
    return {name: share for name, share in shares.items() if share is not None}


def _remedy(scenario: Scenario, kept: Kept, trials: _BestOf, plan: Plan) -> str:
    """Search for the rates at which the deadlines are kept."""
    bound = certify(
        scenario, plan.machine, plan.works, plan.together, plan.cheaper, plan.fused_models
    ).sustainable_factor
    spared = [1.0, bound or 1.0]
    for name in trials.timed:
        spec, least_s = scenario.models[name], _least_s(plan, name)
        if spec.deadline == PERIOD and least_s > 0.0:
            spared.append((spec.deadline_s or 0.0) / least_s)
    tried: list[Trial] = []
    with suppress(_SpentError):
        find_saturation(
            scenario,
            kept,
            trials,
            guess=min(spared),
            stride=1.5,
            precision=_PRECISION,
            on_trial=tried.append,
        )
    factor = max((trial.factor for trial in tried if trial.passed), default=None)
    if factor is None:
        least = min((trial.factor for trial in tried), default=1.0)
        return f"None does with the rates multiplied by {least:.3g} either"
    policy = trials.chosen[scenario.rate_factor * factor]
    broken = min((t for t in tried if t.factor > factor), key=lambda t: t.factor, default=None)
    breaks = f"; at {broken.factor:.3g} {broken.worst} is the first to break" if broken else ""
    return f"With the rates multiplied by {factor:.3g} {policy} keeps them{breaks}"
