"""Turns: brief runs go one after the other on one processor, where waking another takes longer.

Threads of one interpreter wait for each other at both ends of a run. So of two workers with runs of
some ten microseconds each, both wait most of the time. One alone answers about as much, and more
where what comes meanwhile goes together in one run: only that is brief which may share one.

Rule: while all that waits is brief on the same processor (`Lane.brief_on`), it waits for that. What
is idle may take all of it again once something else waits, a run there lasts far too long, the one
that has waited longest has done so for `_PATIENCE_S`, or a deadline would be missed by it. So one
processor that has too much to do gets help, and nothing starves behind what goes first there.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from coinfer.core.lane import Lane
from coinfer.core.policy import WaitUntil
from coinfer.core.view import View

__all__ = ["Turns"]

_OVERDUE_S = 0.01
"""Seconds beyond its expected end after which a run is no longer waited for: some time slices."""

_PATIENCE_S = 0.005
"""Seconds from its arrival on for which a request waits for its turn. So long do some 100 of them
take, and then two cores do about as much as one again, also where runs are shared."""

_APART_S = 0.001
"""Seconds for which none is waited for once one core was found to have too much to do: else a timer
would be set for every request."""


@dataclass(slots=True)
class Turns:
    """Remembers where brief runs take turns."""

    _at: str = ""
    _apart_until_s: float = -math.inf

    def next(self, view: View, *, with_deadlines: bool) -> str | WaitUntil | None:
        """Return where what waits is to start, or until when it waits; None: anywhere.

        Something waits, and some processor is idle.

        Args:
            view: The state.
            with_deadlines: Whether any request ever had a deadline.
        """
        lanes, now, due_s = view.lanes(), view.now, math.inf
        for lane in lanes:
            if not lane.brief_on:
                return None
        if with_deadlines:
            due_s = min([lane.heap[0][2].deadline_s for lane in lanes])
        patient_s = view.oldest.arrival_s + _PATIENCE_S
        if patient_s <= now or now < self._apart_until_s:
            self._apart(now)
            return None
        for execution in view.brief_runs():
            name, end_s = execution.processor, execution.expected_end_s
            if now < end_s + _OVERDUE_S and _all_on(lanes, name):
                latest_s = math.inf if due_s == math.inf else _latest_s(lanes, name, now)
                if latest_s <= max(now, end_s):
                    self._apart(now)
                    return None
                self._at = name
                return WaitUntil(min(end_s + _OVERDUE_S, patient_s, latest_s))
        name = self._start(view, lanes)
        if name and due_s < math.inf and _latest_s(lanes, name, now) < now:
            self._apart(now)
            return None
        return name or None

    def _apart(self, now: float) -> None:
        """Note that one processor has too much to do."""
        if now >= self._apart_until_s:
            self._apart_until_s = now + _APART_S

    def place(self, view: View, lane: Lane) -> str | None:
        """Return where a lone request is to start; None: the queue decides."""
        return None if any(view.brief_runs()) else self._start(view, (lane,)) or None

    def _start(self, view: View, lanes: Collection[Lane]) -> str:
        at = self._at
        if view.is_idle(at) and _all_on(lanes, at):
            return at
        for name in view.idle():
            if _all_on(lanes, name):
                self._at = name
                return name
        return ""


def _all_on(lanes: Collection[Lane], processor: str) -> bool:
    for lane in lanes:  # noqa: SIM110 - for every decision, at half the price of `all`
        if processor not in lane.brief_on:
            return False
    return True


def _latest_s(lanes: Collection[Lane], processor: str, now: float) -> float:
    """Return until when a processor must begin all that waits for nobody to be late by that.

    What is late even if it starts now does not count.
    """
    due_s, work_s = math.inf, 0.0
    for lane in lanes:
        own_s, first_s = lane.seconds[processor], lane.heap[0][2].deadline_s
        work_s += len(lane) * own_s
        if now + own_s <= first_s:
            due_s = min(due_s, first_s)
    return due_s - work_s
