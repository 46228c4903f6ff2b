"""Turns: brief runs go one after the other on one processor, where waking another takes longer.

Threads of one interpreter wait for each other at both ends of a run. So of two workers that share
runs of some ten microseconds each, both wait most of the time, and one alone answers more. What
comes meanwhile can also go together in one run, if it may share one.

Rule: while all that waits is brief on the same processor (`Lane.brief_on`), it waits for that. Once
something else waits, or a run there lasts far too long, what is idle may take all of it again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from coinfer.core.lane import Lane
from coinfer.core.policy import WaitUntil
from coinfer.core.view import View

__all__ = ["Turns"]

_OVERDUE_S = 0.01
"""Seconds beyond its expected end after which a run is no longer waited for: some time slices."""


@dataclass(slots=True)
class Turns:
    """Remembers where brief runs take turns."""

    _at: str = ""

    def next(self, view: View) -> str | WaitUntil | None:
        """Return where what waits is to start, or until when it waits; None: anywhere.

        Something waits, and some processor is idle.
        """
        lanes = view.lanes()
        for lane in lanes:
            if not lane.brief_on:
                return None
        for execution in view.brief_runs():
            name, until_s = execution.processor, execution.expected_end_s + _OVERDUE_S
            if view.now < until_s and _all_on(lanes, name):
                self._at = name
                return WaitUntil(until_s)
        return self._start(view, lanes) or None

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
    return all(processor in lane.brief_on for lane in lanes)
