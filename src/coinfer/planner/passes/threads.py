"""Threads: leave out processors of several threads where their pools would hold too many threads.

Rule: each session on such a processor owns a thread pool. If all pools together would exceed what
the process has room for, models run on processors of one thread only, where these complete them;
but for the few that gain far more seconds by several threads than all others, if there are such.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import pairwise

from coinfer.backends.pools import POOLS
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.machine.span import Span, completes
from coinfer.plan.plan import Plan
from coinfer.planner.planning import Planning

__all__ = ["threads", "within_pools"]

_Pairs = Container[tuple[str, str]]

_FAR_MORE = 2.0


def threads(plan: Plan, planning: Planning) -> Plan:
    """Leave thread pools out if there is no room for all of them."""
    room = POOLS.room(max(processor.threads for processor in plan.processors))
    wanted = plan.profile
    kept = within_pools(wanted, plan.processors, threads=room, keep=planning.wishes.asked)
    if len(kept.entries) == len(wanted.entries):
        return plan
    wide = {processor.name for processor in plan.processors if processor.threads > 1}
    users = sorted({key.model for key in kept.entries if key.processor in wide})
    used = f"used for {', '.join(users)} only" if users else "not used"
    return plan.loading(kept).warned(
        f"processors with several threads are {used}: for {len(plan.models)} models their "
        f"thread pools would hold more than {room} threads"
    )


def within_pools(
    profile: Profile,
    processors: Sequence[Processor],
    *,
    threads: int,
    keep: _Pairs = frozenset(),
) -> Profile:
    """Leave out the processors of several threads if their sessions would hold too many threads.

    Each of those sessions, one per span of a model that is cut, owns a pool. So many that their
    pools exceed the limit keep the cores busy with one thread each. A few of them keep theirs if
    their requests gain `_FAR_MORE` times as many seconds by it as any other's: beside many alike
    it would be arbitrary which do.

    Args:
        profile: What is to be loaded.
        processors: Those in use.
        threads: Threads that all pools together may hold.
        keep: (model, processor) pairs that stay in any case.
    """
    wide = {processor.name: processor.threads for processor in processors if processor.threads > 1}
    sessions = {(key.model, key.span, key.processor) for key in profile.entries}
    if sum(wide.get(name, 0) for _, _, name in sessions) <= threads:
        return profile
    narrow = {
        model
        for model in profile.models()
        if completes(
            [span for of, span, name in sessions if of == model and name not in wide],
            profile.units(model),
        )
    }
    pairs = {
        (model, name)
        for model, _, name in sessions
        if name not in wide or model not in narrow or (model, name) in keep
    }
    left = threads - sum(wide.get(name, 0) for of, _, name in sessions if (of, name) in pairs)
    held = {of: sum(wide.get(name, 0) for each, _, name in sessions if each == of) for of in narrow}
    few = _far_ahead({of: _gain_s(profile, of, wide) for of in narrow}, held, left)
    return profile.of_pairs(pairs | {(of, name) for of, _, name in sessions if of in few})


def _far_ahead(gains: Mapping[str, float], held: Mapping[str, int], threads: int) -> list[str]:
    """Return those models that gain far more by several threads than the others, if they fit.

    Args:
        gains: The seconds of those that could do without.
        held: How many threads the pools of each hold.
        threads: How many they may hold together.
    """
    ordered = sorted(gains, key=lambda model: (-gains[model], model))
    taken, kept = 0, 0
    for at, (model, behind) in enumerate(pairwise(ordered), 1):
        taken += held[model]
        if taken > threads:
            break
        if gains[model] > _FAR_MORE * max(gains[behind], 0.0):
            kept = at
    return ordered[:kept]


def _gain_s(profile: Profile, model: str, wide: Container[str]) -> float:
    """Return the seconds that a whole request gains by several threads; 0 if it is cut."""
    times = {
        key.processor: entry.mean_s
        for key, entry in profile.restricted([model]).at_smallest
        if key.span == Span()
    }
    one = min([s for name, s in times.items() if name not in wide], default=0.0)
    return one - min([s for name, s in times.items() if name in wide], default=one)
