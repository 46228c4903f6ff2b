"""Threads: leave out processors of several threads where their pools would hold too many threads.

Rule: each session on such a processor owns a thread pool. If all pools together would exceed what
the process has room for, models run on processors of one thread only, where these complete them.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from coinfer.backends.pools import POOLS
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.machine.span import completes
from coinfer.plan.plan import Plan
from coinfer.planner.planning import Planning

__all__ = ["threads", "within_pools"]

_Pairs = Container[tuple[str, str]]


def threads(plan: Plan, planning: Planning) -> Plan:
    """Leave thread pools out if there is no room for all of them."""
    room = POOLS.room(max(processor.threads for processor in plan.processors))
    wanted = plan.profile
    kept = within_pools(wanted, plan.processors, threads=room, keep=planning.wishes.asked)
    if len(kept.entries) == len(wanted.entries):
        return plan
    return plan.loading(kept).warned(
        f"processors with several threads are not used: for {len(plan.models)} models their "
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
    pools exceed the limit keep the cores busy with one thread each; which few of them would get a
    pool would be arbitrary.

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
    return profile.of_pairs(
        {
            (model, name)
            for model, _, name in sessions
            if name not in wide or model not in narrow or (model, name) in keep
        },
    )
