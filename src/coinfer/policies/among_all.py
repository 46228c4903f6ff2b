"""Among all: where a request finishes first, asked of each processor.

The rule of `earliest_finish` where processors differ; `among_alike` is the same for many of a few
kinds. What is chosen and free gives way to a free processor that holds up fewer of those that wait
beside and can do with no other one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from coinfer.core.foresight import Forecast
from coinfer.machine.processor import Processor
from coinfer.policies.rivals import Rivals

__all__ = ["best_among_all"]

_ELSEWHERE = 3.0
"""On a processor that holds up fewer of those that wait beside, a request may take so many times
what it takes where it is done first."""


def best_among_all(
    processors: Mapping[str, Processor],
    seconds: Mapping[str, float],
    deadline_s: float,
    now: float,
    free_at: Mapping[str, float],
    waiting: int,
    forecast: Forecast | None,
    beside: Rivals | None,
    stall: float,
) -> tuple[str, float]:
    """Return the processor where a request finishes first, others considered, and when that is.

    Others are considered in that each of the `waiting` requests, this one included, could have
    used one of the units: a run on several of them costs its time as often. And what is about
    to come, or waits beside it, and would be late counts like the lateness of the request itself.
    """
    best = (math.inf, math.inf, math.inf)
    chosen = ""
    for name, service_s in seconds.items():
        units = processors[name].units
        if chosen and not best[0]:
            # Nearly always all but one or two would be no better if they were free.
            cost_s = service_s
            if len(units) > 1:
                cost_s = service_s * stall * min(len(units), waiting)
            if now + cost_s > best[1]:
                continue
        start = now
        for unit in units:
            free = free_at.get(unit, now)
            if free > start:
                start = free
        finish = start + service_s
        score, stalled = finish, finish
        if len(units) > 1:
            stalled = start + service_s * stall
            score = start + service_s * stall * min(len(units), waiting)
        late: int = stalled > deadline_s
        if forecast is not None:
            late += forecast.n_late(free_at, units, finish)
        if beside is not None:
            late += beside.n_late(free_at, units, finish)
        value = (late, score, finish)
        if value < best:
            best, chosen = value, name
    finish = best[2]
    if beside is not None and not best[0] and processors[chosen].units.isdisjoint(free_at):
        held = beside.n_held(free_at, processors[chosen].units)
        if held:
            latest_s = min(deadline_s, now + _ELSEWHERE * (finish - now))
            return _elsewhere(
                processors,
                seconds,
                latest_s,
                now,
                free_at,
                forecast,
                beside,
                (held, finish, chosen),
            )
    return chosen, finish


def _elsewhere(
    processors: Mapping[str, Processor],
    seconds: Mapping[str, float],
    latest_s: float,
    now: float,
    free_at: Mapping[str, float],
    forecast: Forecast | None,
    beside: Rivals,
    best: tuple[int, float, str],
) -> tuple[str, float]:
    """Return the free processor that holds up the fewest of those that can do with no other one.

    It makes none late, and the request is done on it by `latest_s`. `best` is what was chosen: how
    many it holds up, when the request is done there, and its name.
    """
    for name, service_s in seconds.items():
        units, finish = processors[name].units, now + service_s
        if finish > latest_s or not units.isdisjoint(free_at):
            continue
        value = (beside.n_held(free_at, units), finish, name)
        if value >= best or beside.n_late(free_at, units, finish):
            continue
        if forecast is None or not forecast.n_late(free_at, units, finish):
            best = value
    return best[2], best[1]
