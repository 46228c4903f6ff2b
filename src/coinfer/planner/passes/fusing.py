"""Fusing: which models of one architecture are answered by one run (NetFuse, arXiv 2009.13062).

Rule: models whose graphs correspond are fused by 8, 16, 32, 4 and 2, and each fused graph competes
on each processor with the best unfused way, as many real sessions with weights of their own. What
does not win (`metrics.paired`) is not kept, nor what answers otherwise than the models do. Of the
sizes that win, the one that gains most is taken for groups of neighbours, and the largest of at
most half of it for when fewer wait. `auto` looks at models of a few milliseconds only, where
starting operators is what takes the time; if 8 clearly lose, no other size is tried. Groups that
were asked for are kept also where they lose: the core uses a fused variant only where its times say
that it is cheaper (`coinfer.core.riders`). What handing over a run takes counts on both sides, as
it does there: fused, it is taken once.

It comes after all that changes times: it competes with what other passes have chosen. Its weights
are its own. The members stay loaded too, where memory has room for both.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from coinfer.artefacts import default_store
from coinfer.errors import BackendError, ConfigurationError, UnknownNameError
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.model import Model
from coinfer.plan.choice import Alternative, Choice
from coinfer.plan.fused_plan import FusedPlan
from coinfer.plan.plan import Plan
from coinfer.planner.fusing.alike import alike, obstacle
from coinfer.planner.fusing.graphs import FusedGraph, fused_graph
from coinfer.planner.fusing.trials import Trial, places, tried
from coinfer.planner.planning import Planning
from coinfer.units import format_bytes, format_seconds
from coinfer.workload.fuse_spec import unknown_member

__all__ = ["fusing"]

_SIZES = (8, 16, 32, 4, 2)
"""Numbers of models that are fused, in the order in which they are tried."""

_MOST_S = 5e-3
"""Of models that take longer anywhere, `auto` fuses none: there is little to win."""

_LOST = 0.9
"""If even the upper bound of the first size is below this, no other size is tried."""

_LEAST_S = 3.0
"""With less of the budget left, no further size is tried."""


class _Fused(NamedTuple):
    """A fused graph of some models, and what came of it by place."""

    members: tuple[str, ...]
    graph: FusedGraph
    trials: tuple[Trial, ...]

    @property
    def best(self) -> float:
        """The most that it gains anywhere."""
        return max((trial.ratio.median for trial in self.trials), default=0.0)


def fusing(plan: Plan, planning: Planning) -> Plan:
    """Add fused variants.

    Raises:
        ConfigurationError: models that are to be fused cannot be.
        UnknownNameError: there is no model of a name in a group.
    """
    wish = planning.wishes.fuse
    if wish == "never":
        return plan
    if wish == "auto":
        groups = _auto_groups(plan, planning)
        if groups:
            plan = _handing_over(plan, planning)
        for group in groups:
            least_s = min(_least_s(plan, name) for name in group)
            if least_s > _MOST_S:
                why = f"none: a run takes {format_seconds(least_s)}, which leaves little to gain"
                plan = _told(plan, group, Choice("fusing", f"{why}; `fuse` can name them"))
            else:
                plan = _chosen(plan, planning, group)
        return plan
    stranger = unknown_member(wish, plan.models)
    if stranger is not None:
        raise UnknownNameError.of("model", stranger, plan.models)
    plan = _handing_over(plan, planning)
    for group in wish:
        plan = _asked(plan, planning, group)
    return plan


def _handing_over(plan: Plan, planning: Planning) -> Plan:
    """Measure what handing over a run takes, unless that is known or the time is over."""
    profiler = planning.profiler
    if plan.machine.overhead_s or profiler.budget.left_s < _LEAST_S:
        return plan
    from coinfer.experiments.handover import handover_s  # needs the zoo

    with profiler.budget.spending():
        machine = dataclasses.replace(plan.machine, overhead_s=handover_s(profiler.cache))
    return dataclasses.replace(plan, machine=machine)


def _auto_groups(plan: Plan, planning: Planning) -> list[tuple[str, ...]]:
    if len(plan.models) < 2 or not default_store().limit_bytes:
        return []
    able = [name for name in plan.models if not obstacle(plan, planning, name)]
    fast = [name for name in able if _least_s(plan, name) <= _MOST_S]
    slow = [name for name in able if _MOST_S < _least_s(plan, name) < math.inf]
    return alike(plan, planning, fast) + alike(plan, planning, slow, by_fingerprint=True)


def _least_s(plan: Plan, name: str) -> float:
    own = plan.profile.restricted([name])
    return min((entry.mean_s for _, entry in own if not entry.estimated), default=math.inf)


def _asked(plan: Plan, planning: Planning, group: tuple[str, ...]) -> Plan:
    """Fuse models that are to be fused."""
    what = f"fuse: [{', '.join(group)}]"
    for name in group:
        reason = obstacle(plan, planning, name)
        if reason:
            raise ConfigurationError(f"{what}: {name} cannot be fused: {reason}")
    if len({plan.models[name].batch for name in group}) > 1:
        raise ConfigurationError(f"{what}: their requests have different numbers of samples")
    found = _tried(plan, planning, group)
    if isinstance(found, str):
        raise ConfigurationError(f"{what}: they cannot be fused: {found}")
    good = [each for each in found.trials if not _wrong(each, planning)]
    if not good:
        why = "; ".join(f"{e.place.processor.name}: {_wrong(e, planning)}" for e in found.trials)
        raise ConfigurationError(f"{what}: {why or 'they share no processor in fp32'}")
    chosen = Choice("fusing", f"{_text(plan, found, good)}, as asked")
    return _with(plan, planning, found, good, (chosen,))


def _chosen(plan: Plan, planning: Planning, group: tuple[str, ...]) -> Plan:
    """Fuse what wins of models of one architecture."""
    won: dict[int, list[Trial]] = {}
    lost: list[Alternative] = []
    for size in (size for size in _SIZES if size <= len(group)):
        if planning.profiler.budget.left_s < _LEAST_S:
            lost.append(Alternative(f"{size} models", "the time for measuring was over"))
            break
        found = _tried(plan, planning, group[:size])
        if isinstance(found, str):
            lost.append(Alternative(f"{size} models", found))
            break
        won[size] = [each for each in found.trials if _wins(each, planning)]
        lost += _losers(found, planning)
        if not any(each.ratio.upper >= _LOST for each in found.trials):
            break
    sizes = {
        size: max(each.ratio.median for each in trials) for size, trials in won.items() if trials
    }
    if not sizes:
        choice = Choice("fusing", "none: no fused variant is faster", tuple(lost))
        return _told(plan, group, choice)
    most = max(sizes, key=sizes.__getitem__)
    half = max((size for size in sizes if size <= most / 2), default=0)
    for size in filter(None, (most, half)):
        for members in _groups(group, size, sizes if size == most else {}):
            plan = _further(plan, planning, members, won[len(members)], tuple(lost))
    return plan


def _groups(
    group: Sequence[str], size: int, others: Mapping[int, float]
) -> Iterator[tuple[str, ...]]:
    """Cut neighbours into groups of a size; what is left over into smaller ones that win."""
    at = 0
    while at < len(group):
        left = len(group) - at
        count = size if left >= size else max((n for n in others if n <= left), default=0)
        if not count:
            return
        yield tuple(group[at : at + count])
        at += count


def _further(
    plan: Plan,
    planning: Planning,
    members: tuple[str, ...],
    won: Sequence[Trial],
    lost: tuple[Alternative, ...],
) -> Plan:
    """Fuse a group as others of one architecture were: the times are theirs."""
    graph = fused_graph(_name(plan, members), _models(planning, members), planning)
    if isinstance(graph, str):
        return _told(plan, members, Choice("fusing", f"none: {graph}"))
    good = []
    for each in won:
        own = _tried_at(plan, planning, members, graph, each)
        if not isinstance(own, str):
            good.append(own)
    if not good:
        return _told(plan, members, Choice("fusing", "none: it answers otherwise", lost))
    found = _Fused(members, graph, tuple(good))
    return _with(plan, planning, found, good, (Choice("fusing", _text(plan, found, good), lost),))


def _tried_at(
    plan: Plan, planning: Planning, members: tuple[str, ...], graph: FusedGraph, like: Trial
) -> Trial | str:
    """Compare the answers of a fused graph; take the times of one like it."""
    models = _models(planning, members)
    try:
        own = tried(_name(plan, members), graph, models, like.place, plan, planning, rounds=0)
    except BackendError as error:
        return str(error)
    reason = _wrong(own, planning)
    if reason:
        return reason
    return dataclasses.replace(like, trial=like.trial._replace(error=own.trial.error))


def _tried(plan: Plan, planning: Planning, members: tuple[str, ...]) -> _Fused | str:
    """Fuse models and let that compete at each place; or say why it cannot."""
    name, models = _name(plan, members), _models(planning, members)
    graph = fused_graph(name, models, planning)
    if isinstance(graph, str):
        return graph
    trials, problems = [], []
    for place in places(plan, members):
        try:
            trials.append(tried(name, graph, models, place, plan, planning))
        except BackendError as error:
            problems.append(str(error))
    if not trials and problems:
        return problems[0]
    return _Fused(members, graph, tuple(trials))


def _models(planning: Planning, members: Sequence[str]) -> dict[str, Model]:
    return {name: planning.models[name] for name in members}


def _name(plan: Plan, members: Sequence[str]) -> str:
    name = f"{members[0]}+{len(members) - 1}"
    while name in plan.models:
        name += "f"
    return name


def _wrong(trial: Trial, planning: Planning) -> str:
    """Say what is wrong with the answers of a fused variant; nothing if they are right."""
    tolerance = planning.wishes.agreement.tolerance
    if trial.trial.error <= tolerance:
        return ""
    return f"its answers differ by {trial.trial.error:.2g}; {tolerance:g} is allowed"


def _wins(trial: Trial, planning: Planning) -> bool:
    return trial.ratio.is_better and not _wrong(trial, planning)


def _losers(found: _Fused, planning: Planning) -> Iterator[Alternative]:
    for each in found.trials:
        if not _wins(each, planning):
            what = f"{len(found.members)} models on {each.place.processor.name}"
            why = f"{each.ratio} as fast as apart on {each.place.best.name}"
            yield Alternative(what, _wrong(each, planning) or why)


def _told(plan: Plan, members: Sequence[str], choice: Choice) -> Plan:
    for name in members:
        plan = plan.with_variant(name, plan.models[name].original, choice)
    return plan


def _with(
    plan: Plan,
    planning: Planning,
    found: _Fused,
    trials: Sequence[Trial],
    choices: tuple[Choice, ...],
) -> Plan:
    """Add a fused variant, and say so at its members."""
    members, name = found.members, _name(plan, found.members)
    planning.fused[name] = found.graph.model
    batch = plan.models[members[0]].batch
    entries: dict[ProfileKey, Measurement] = {}
    for trial in trials:
        entry = trial.measurement(plan, members, batch)
        entries |= {ProfileKey(name, at, batch): entry for at in trial.place.alike}
    fused = FusedPlan(
        models=members,
        graph=found.graph.file,
        batch=batch,
        processors=tuple(p.name for p in plan.processors if any(k[1] == p.name for k in entries)),
        choices=choices,
    )
    plan = plan.with_profile(plan.measured.merged(Profile(entries))).with_fused(name, fused)
    return _told(plan, members, Choice("fusing", f"in {name}: {choices[0].what}"))


def _text(plan: Plan, found: _Fused, trials: Sequence[Trial]) -> str:
    """Say what a fused variant gains, and what it takes."""
    gains = ", ".join(f"{each.ratio.median:.2f}x on {each.place.processor.name}" for each in trials)
    best = trials[0].place.best.name
    profile = plan.measured
    own = sum(
        entry.resident_bytes
        for name in found.members
        for key, entry in profile.restricted([name])
        if key.processor == best and key.batch == plan.models[name].batch and not key.shape
    )
    held = format_bytes(trials[0].trial.resident_bytes)
    handover_s = plan.machine.overhead_s
    handed = f", with {format_seconds(handover_s)} for handing over a run" if handover_s else ""
    return (
        f"{len(found.members)} models in one run: {gains} as fast as apart{handed}; it holds "
        f"{held}, they hold {format_bytes(own)}"
    )
