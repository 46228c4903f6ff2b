"""Policy review: whether another policy would serve what was seen better than the one that decides.

The requests that came are simulated again under the policy that decides now. If some were not in
time or not served, they are simulated under every policy (`policy_search`), with that one as the
default, which ties go to. What wins is compared with that once more, with
other random times: the best of many always looks better than it is on the times that made it win.
The smaller gain counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coinfer.core.limits import Limits
from coinfer.core.request import Request
from coinfer.experiments.policy_candidates import candidates
from coinfer.experiments.policy_search import OFF_BY, Found, PolicySearch, Tried
from coinfer.metrics.counts import ModelCounts, RunCounts
from coinfer.plan.plan import Plan, PolicyChoice
from coinfer.policies import make_policy
from coinfer.sim.simulate import simulate
from coinfer.workload.scenario import Scenario
from coinfer.workload.seen_scenario import seen_scenario

__all__ = ["Advice", "Review", "review"]


_STILL_RUN = 0.02
"""As large a difference in throughput is a tie (`Promises`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What is to be found out.

    Attributes:
        plan: What serves; its policy decides now.
        requests: What was seen; at least one.
        limits: What the core enforces.
        budget: How many requests may be simulated, roughly.
    """

    plan: Plan
    requests: Sequence[Request]
    limits: Limits = Limits()
    budget: int


class Advice(NamedTuple):
    """What a review found.

    Attributes:
        policy: The best policy; the one that decides now if none is better.
        gain: By how much it is better, as a share: 0.1 is 10 % more; 0 for the present one.
        why: What it would reach, and what the present one.
        simulated: How many requests were simulated.
    """

    policy: PolicyChoice
    gain: float
    why: str
    simulated: int


def review(asked: Review) -> Advice:
    """Find the policy that would have served best what was seen.

    Raises:
        PolicyError: the policy that decides now fails when it is simulated.
        UnknownNameError: it has no name.
    """
    names = {request.model for request in asked.requests}
    plan, now = asked.plan, asked.plan.policy
    for name in [name for name in plan.models if name not in names]:
        plan = plan.without(name)
    known = [request for request in asked.requests if request.model in plan.models]
    if not known:
        return Advice(now, 0.0, "what was asked for is not loaded any more", 0)
    load = seen_scenario(known, plan.models, asked.limits)
    counts = [_counts(load, plan, off_by) for off_by in (1.0, OFF_BY)]
    if all(_is_all_kept(each) for run in counts for each in run.models.values()):
        n = sum(each.submitted for run in counts for each in run.models.values())
        why = f"all is served and in time, also where times are off by {OFF_BY:g}x"
        return Advice(now, 0.0, why, n)
    # `fixed` knows only the models that were seen, and fails with the first request to another.
    others = [p for p in candidates(load, plan)[0] if p.name != "fixed" and p != now]
    search = PolicySearch(scenario=load, forms={"": plan}, budget=asked.budget)
    found = search.find([now, *others])
    best, present = found.tried[0], _of(found, now)
    if best.way == present.way:
        why = f"none of {len(found.tried)} is better: {_words(search, present)}"
        return Advice(now, 0.0, why, found.requests)
    again = _again(load, plan, best, present)
    gain = min(
        search.promises.gain(best.figures, present.figures),
        search.promises.gain(_of(again, best.way.policy).figures, _of(again, now).figures),
    )
    why = f"{_words(search, best)}, and {now.text}: {_words(search, present)}"
    return Advice(best.way.policy, gain, why, found.requests + again.requests)


def _counts(load: Scenario, plan: Plan, off_by: float) -> RunCounts:
    policy = make_policy(plan.policy.name, **plan.policy.options)
    return simulate(load, plan, policy, off_by=off_by).run_counts


def _is_all_kept(counts: ModelCounts) -> bool:
    """Tell whether no policy can do more for a model; at the end of the window some still run."""
    is_kept = counts.hits == counts.with_deadline and counts.completed == counts.submitted
    return is_kept and counts.served >= (1 - _STILL_RUN) * counts.submitted


def _again(load: Scenario, plan: Plan, best: Tried, present: Tried) -> Found:
    """Simulate two policies as long as before, with other random times."""
    other = load.model_copy(update={"seed": load.seed + 1})
    search = PolicySearch(scenario=other, forms={"": plan}, budget=4 * best.requests)
    return search.find([present.way.policy, best.way.policy])


def _of(found: Found, policy: PolicyChoice) -> Tried:
    return next(each for each in found.tried if each.way.policy == policy)


def _words(search: PolicySearch, tried: Tried) -> str:
    exact, off = (search.promises.words(each) for each in (tried.exact, tried.off))
    return f"{exact}; {off} where times are off by {OFF_BY:g}x"
