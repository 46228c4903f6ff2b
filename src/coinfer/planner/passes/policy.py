"""Policy: which policy decides, where that is left to planning (`policy: auto`).

Rule: the load of the scenario is simulated on the plan's machine under every registered policy
(`experiments.policy_candidates`), in rounds of which each is longer and has half as many candidates
(`experiments.policy_search`, after Karnin et al., ICML 2013). Deadlines count first, then the
score, then throughput (`experiments.promises`). What is not better than the default by more than a
margin, also where times are off by half, does not replace it. What was left to planning may be
left out again if the load is served better without: preemption, batching, fusing. If none keeps the
deadlines, the plan warns by how much the rates are too high.

It is the last pass, since it simulates what all others decided. The search is bounded by a number
of simulated requests, so the same plan and scenario give the same choice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from coinfer.errors import ConfigurationError
from coinfer.experiments.keepable import why_not_kept
from coinfer.experiments.policy_candidates import candidates
from coinfer.experiments.policy_search import OFF_BY, Found, PolicySearch, Tried, Way
from coinfer.plan.choice import Alternative, Choice
from coinfer.plan.plan import AUTO, Plan, PolicyChoice
from coinfer.planner.planning import Planning
from coinfer.profiling import Profiler
from coinfer.runtime.prepared import Prepared
from coinfer.workload.processor_spec import DefaultProcessors
from coinfer.workload.scenario import Scenario

__all__ = ["BUDGET", "policy", "telling", "with_best_policy"]

BUDGET = 100_000
"""Requests that are simulated to choose."""


def policy(plan: Plan, planning: Planning) -> Plan:
    """Choose the policy, if that was asked for.

    Raises:
        ConfigurationError: it was, and there is no scenario to choose it for.
    """
    if plan.policy.name != AUTO:
        return plan
    scenario = planning.wishes.scenario
    if scenario is None:
        raise ConfigurationError(
            f"policy {AUTO!r} is chosen for the load of a scenario, and there is none; name a "
            "policy, or plan a scenario"
        )
    return with_best_policy(plan, scenario, telling(planning.profiler))


def telling(profiler: Profiler | None) -> Callable[[int], None]:
    """Return what tells the profiler's progress how many requests were simulated."""
    progress = None if profiler is None else profiler.progress
    if progress is None:
        return lambda _: None
    return lambda done: progress(min(done, BUDGET), BUDGET, "simulated to choose a policy")


def with_best_policy(
    plan: Plan, scenario: Scenario, tell: Callable[[int], None] = lambda _: None
) -> Plan:
    """Copy a plan with the policy that serves a scenario best, and with what was tried.

    Args:
        plan: What all else was decided in.
        scenario: What is to be served.
        tell: Called now and then with how many requests were simulated.
    """
    load = Prepared(scenario=scenario, plan=plan).as_run
    forms = dict(_forms(plan, scenario))
    search = PolicySearch(scenario=load, forms=forms, budget=BUDGET, tell=tell)
    policies, refused = candidates(load, plan)
    found = search.find(policies)
    chosen = found.tried[0].way
    lost = [_lost(search, each) for each in found.tried[1:]]
    lost += [Alternative(each.name, f"not simulated: {each.why}") for each in refused]
    lost += [Alternative(each.name, f"failed: {each.why}") for each in found.refused]
    why = Choice("policy", _reason(search, found, policies[0]), tuple(lost))
    done = forms[chosen.form].with_policy(chosen.policy, why)
    ways = [(each.way.policy, forms[each.way.form]) for each in found.tried[: found.finalists]]
    warning = why_not_kept(load, ways, BUDGET)
    return done if warning is None else done.warned(warning)


def _forms(plan: Plan, scenario: Scenario) -> Iterator[tuple[str, Plan]]:
    """Yield the plan as it is, and without each thing that was left to planning to add."""
    yield "", plan
    processors = scenario.processors
    is_open = isinstance(processors, DefaultProcessors) and processors.preempt == "auto"
    if is_open and any(processor.overlays for processor in plan.processors):
        yield "without preemption", plan.without_express()
    if plan.together and all(spec.batching.max == "auto" for spec in scenario.models.values()):
        yield "without batching", plan.without_batching()
    if plan.fused and scenario.fuse == "auto":
        yield "without fusing", functools.reduce(Plan.without_fused, plan.fused, plan)


def _reason(search: PolicySearch, found: Found, default: PolicyChoice) -> str:
    best, n = found.tried[0], len({each.way.policy.text for each in found.tried})
    rank = f"the best of {n} on {found.requests:,} simulated requests"
    if best.way == Way(default):
        rank = f"which none of {n} beats clearly on {found.requests:,} simulated requests"
    return f"{best.way}, {rank}: {_words(search, best)}"


def _words(search: PolicySearch, tried: Tried) -> str:
    exact, off = (search.promises.words(each) for each in (tried.exact, tried.off))
    return f"{exact}; {off} where times are off by {OFF_BY:g}x"


def _lost(search: PolicySearch, tried: Tried) -> Alternative:
    return Alternative(str(tried.way), f"{_words(search, tried)}, on {tried.requests:,} requests")
