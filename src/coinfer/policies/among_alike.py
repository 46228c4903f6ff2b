"""Among alike: where a request finishes first on a machine of many processors.

The rule is that of `earliest_finish`, asked of a few kinds of processors instead of each: of those
that are alike the first free one stands for all, and one that is busy only counts if none is free.
A busy kind does not count either where another width of the same cores is free and in time. Kinds
are looked at from narrow to wide; one that could not win if it were free is skipped. So a
decision costs as much on 64 cores as on four.

What a width costs is what the others wait longer for its cores, by how many are free just now
(`prices`). So a run is wide where cores are idle, also under load, and takes the last ones only
where that is worth it. More cores than usual at this load (`crowding`) are taken where they are
idle, not waited for.

A width at which the machine could not do what comes is no rescue for a request whose deadline a
narrower run would miss, as long as others wait: each core-second that it wastes makes some of these
late, they would have to be rescued in their turn, and the queue never ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from coinfer.core.alike import Alike
from coinfer.core.foresight import Forecast
from coinfer.core.lane import Lane
from coinfer.core.view import View
from coinfer.policies.crowding import Crowding

__all__ = ["best_among_alike"]

_INF = math.inf


def best_among_alike(
    view: View,
    lane: Lane,
    seconds: Mapping[str, float],
    deadline_s: float,
    waiting: int,
    forecast: Forecast | None,
    crowding: Crowding,
    free_at: Mapping[str, float] | None,
    used: int,
) -> tuple[str, float, float]:
    """Return the processor where a request finishes first, others considered, and when that is.

    And the least seconds that it takes at a width that wastes nothing; infinite if nothing runs it.

    Args:
        view: The state.
        lane: Where the request waits.
        seconds: Of the request by processor.
        deadline_s: Its deadline.
        waiting: How many requests wait, this one included.
        forecast: What is about to come.
        crowding: What widths cost at the present load.
        free_at: When each unit in use will be free; None: asked from the view if it is needed.
        used: The units that run something or are reserved, a bit each.
    """
    now, processors = view.now, view.processors
    best = (_INF, _INF, _INF)
    chosen = ""
    unwasted_s = _INF
    n_units = view.n_units
    n_free = n_units - used.bit_count()
    usual = crowding.usual(view, lane)
    cost_s, patience = crowding.prices(n_units).cost_s, crowding.patience(usual)
    load, preempting, least_work_s = crowding.load, crowding.preempting, _INF
    queued = waiting * usual.width - n_free
    for alike in view.alike:
        width = alike.width
        least_s = alike.least_s(seconds)
        if least_s == _INF:
            continue
        work_s = least_s * width
        if work_s < least_work_s:
            least_work_s = work_s
        # All that wait, at that width, fill what is free and then take turns on all units, as these
        # become free one after the other: on average a request waits for half of the turns.
        turns = (waiting * width - n_free) / n_units
        is_wasted = False
        if turns > 0.0:
            is_wasted = work_s > least_work_s < load * work_s
        if not is_wasted and least_s < unwasted_s:
            unwasted_s = least_s
        if n_free < width > usual.width and chosen and not best[0]:
            continue  # more cores than usual are taken where they are idle, not waited for
        weight = 1.0
        if least_s > 0.0:
            weight += patience * cost_s(n_free, width, usual.width, least_s, queued) / least_s
        if preempting:
            weight *= crowding.stall(width)
        if turns > 0.0:
            weight *= 1.0 + turns / 2.0
        is_late = is_wasted or now + least_s > deadline_s
        if (int(is_late), now + least_s * weight, now + least_s) >= best:
            continue
        start, name = now, alike.free(seconds, used, least_s)
        if (
            not name
            and chosen
            and not best[0]
            and (width > usual.width or waiting * width > n_units)
        ):
            continue  # one is free and in time, and not all that wait could be so wide at once
        if not name or forecast is not None:
            free_at = view.units_free_at() if free_at is None else free_at
        if not name:
            assert free_at is not None
            score_s = _INF if best[0] else best[1]
            start, name = _soonest(view, alike, seconds, weight, free_at, score_s)
            if not name:
                continue
        finish = start + seconds[name]
        late = int(is_wasted or finish > deadline_s)
        if forecast is not None:
            assert free_at is not None
            late += forecast.n_late(free_at, processors[name].units, finish)
        value = (late, start + seconds[name] * weight, finish)
        if value < best:
            best, chosen = value, name
    return chosen, best[2], unwasted_s


def _soonest(
    view: View,
    alike: Alike,
    seconds: Mapping[str, float],
    weight: float,
    free_at: Mapping[str, float],
    score_s: float,
) -> tuple[float, str]:
    """Return when the best of alike processors will be free, and its name; empty if none is better.

    All of them are busy. Better is what has a lower score: the start and the weighted seconds.
    """
    now, processors = view.now, view.processors
    found = (now, "")
    for name in alike.names:
        weighted_s = seconds.get(name, _INF) * weight
        start, limit_s = now, score_s - weighted_s
        for unit in processors[name].units:
            free_s = free_at.get(unit, now)
            if free_s > start:
                start = free_s
                if start >= limit_s:
                    break
        else:
            if start < limit_s:
                score_s, found = start + weighted_s, (start, name)
    return found
