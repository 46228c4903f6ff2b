"""Column review: whether other processors would serve better what an engine was asked for.

The processors of each model are chosen as planning does (`coinfer.planner.columns`), for the rates,
deadlines and moments of the requests that came. Then these requests are simulated on what is loaded
and on what was chosen, under the policy that decides, with times as measured and with times that
are off. The choice is advised if no promise is kept worse in either, and what is gained is above a
margin in both: in what was promised, or in response time. So two choices near a tie do not
alternate, and nothing is loaded for little.

Models that are cut, or that nobody asked for, stay where they are; so do variants and fused models.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from coinfer.core.limits import Limits
from coinfer.core.request import Request
from coinfer.experiments.policy_search import OFF_BY
from coinfer.experiments.promises import Promises
from coinfer.machine.span import Span
from coinfer.metrics.counts import RunCounts
from coinfer.plan.plan import Plan
from coinfer.planner.columns import Columns, Demand, Room, few, has_widths
from coinfer.planner.useful import useful
from coinfer.policies import make_policy
from coinfer.sim.simulate import simulate
from coinfer.workload.scenario import Scenario
from coinfer.workload.seen_scenario import seen_scenario

__all__ = ["SOONER", "ColumnAdvice", "ColumnReview", "movable", "review_columns"]

SOONER = 0.1
"""By how much sooner requests must be answered if no more are in time: loading takes cores from
them for a while, and simulated response times are off by some percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnReview:
    """What is to be found out.

    Attributes:
        plan: What is loaded; its policy decides.
        requests: What was seen.
        models: Those that may move.
        sessions: By processor, equal for those that share a session.
        room: What sessions may take beside those of the models that may move.
        margin: By how much promises must be kept better, as a share.
        limits: What the core enforces.
        lost: Processors out of service: nothing is loaded there, and nothing runs there.
    """

    plan: Plan
    requests: Sequence[Request]
    models: Sequence[str]
    sessions: Mapping[str, str]
    room: Room
    margin: float
    limits: Limits = Limits()
    lost: Collection[str] = ()


class ColumnAdvice(NamedTuple):
    """What a review found.

    Attributes:
        columns: By model that had better move, its processors in the order of preference, and why.
        rates: Requests per second by model that these were chosen for.
        why: What is gained, or why nothing is.
        simulated: How many requests were simulated.
    """

    columns: Mapping[str, tuple[Sequence[str], Sequence[str]]]
    rates: Mapping[str, float]
    why: str
    simulated: int = 0


def movable(plan: Plan) -> list[str]:
    """Return the models of which the plan has times on processors where they are not loaded.

    None where there are no widths to choose from, or where memory has a budget: that decides then
    what is loaded.
    """
    if plan.memory or not has_widths(plan.processors):
        return []
    return [
        name
        for name, model in plan.models.items()
        if model.original.n_units == 1
        and plan.measured.spans_by_processor(name).keys() - model.original.spans.keys()
    ]


def review_columns(asked: ColumnReview) -> ColumnAdvice:
    """Find the processors that would serve best what was seen.

    Raises:
        PolicyError: the policy that decides fails when it is simulated.
        UnknownNameError: it has no name.
    """
    plan = asked.plan
    seen = {request.model for request in asked.requests}
    for name in [name for name in plan.models if name not in seen]:
        plan = plan.without(name)
    in_service = {p.name for p in plan.processors if p.name not in asked.lost}
    names = [
        name
        for name in plan.models
        if name in asked.models and in_service & plan.measured.spans_by_processor(name).keys()
    ]
    if not names:
        return ColumnAdvice({}, {}, "what was asked for cannot move")
    known = [request for request in asked.requests if request.model in plan.models]
    load = seen_scenario(known, plan.models, asked.limits)
    demand = _demand(load, known, names)
    chosen = _chosen(asked, plan, names, demand)
    moves = {
        name: (columns.processors, columns.why)
        for name, columns in chosen.items()
        if set(columns.processors) != set(plan.models[name].original.spans)
    }
    if not moves:
        return ColumnAdvice({}, demand.rates, "what is loaded is what serves best")
    other = plan
    for name, (processors, _) in moves.items():
        spans = dict.fromkeys(processors, (Span(),))
        other = other.with_variant(name, replace(other.models[name].original, spans=spans))
    gain, why, simulated = _compared(load, plan, other, asked)
    return ColumnAdvice(moves if gain else {}, demand.rates, why, simulated)


def _demand(load: Scenario, requests: Sequence[Request], names: Sequence[str]) -> Demand:
    """Return what was asked for of some models, as planning knows it."""
    counts = dict.fromkeys(names, 0)
    arrivals = [(r.arrival_s, r.model) for r in requests if r.model in counts]
    for _, name in arrivals:
        counts[name] += 1
    deadlines = {name: load.models[name].deadline_s for name in names}
    return Demand(
        rates={name: count / load.end_s for name, count in counts.items()},
        is_absolute=True,
        deadlines={name: each for name, each in deadlines.items() if each},
        arrivals=partial(sorted, arrivals),
    )


def _chosen(
    asked: ColumnReview, plan: Plan, names: Sequence[str], demand: Demand
) -> dict[str, Columns]:
    threads = {p.name: p.threads for p in plan.processors if p.threads > 1}
    held = sum(threads.get(at, 0) for name in names for at in plan.models[name].original.spans)
    profile = plan.measured.restricted(names).where(lambda key: key.processor not in asked.lost)
    processors = [p for p in plan.processors if p.name not in asked.lost]
    return few(
        useful(profile, processors, shares=plan.machine.shares),
        processors,
        demand,
        room=asked.room._replace(threads=asked.room.threads + held),
        session_of=lambda processor: asked.sessions.get(processor.name, processor.name),
    )


def _compared(load: Scenario, now: Plan, then: Plan, asked: ColumnReview) -> tuple[bool, str, int]:
    """Tell whether another plan serves a load better, why, and how much was simulated for that."""
    promises, gains, simulated, words = Promises.of(load), [], 0, ""
    for off_by in (1.0, OFF_BY):
        runs = [_counts(load, plan, off_by, asked.lost) for plan in (now, then)]
        simulated += sum(each.submitted for run in runs for each in run.models.values())
        before, after = (promises.figures(run) for run in runs)
        before_s, after_s = (_response_s(run) for run in runs)
        if off_by == 1.0:
            words = (
                f"{promises.words(after)}, answered after {after_s * 1e3:.3g} ms, in place of "
                f"{promises.words(before)}, after {before_s * 1e3:.3g} ms"
            )
        is_worse = promises.is_worse(after, before)
        more, sooner = promises.gain(after, before), before_s / after_s - 1
        gains.append(not is_worse and (more > asked.margin or sooner > SOONER))
    return all(gains), words, simulated


def _counts(load: Scenario, plan: Plan, off_by: float, lost: Collection[str]) -> RunCounts:
    policy = make_policy(plan.policy.name, **plan.policy.options)
    return simulate(load, plan, policy, off_by=off_by, lost=lost).run_counts


def _response_s(counts: RunCounts) -> float:
    """Return the geometric mean over models of their mean response times."""
    means = [each.latencies.mean_s() for each in counts.models.values() if each.completed]
    return math.exp(statistics.fmean(map(math.log, means))) if means else math.inf
