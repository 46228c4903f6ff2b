"""Earliest finish, with a gate: the default.

Rule: take the waiting requests by urgency. For each, the processor on which it would finish first,
counting the wait for busy ones (Band's "shortest expected latency" and minimum completion time of
Maheswaran et al., 1999, for one request). If that processor is free, start; if it is busy, the
request waits for it, its time there is counted as reserved, and the next request is looked at. So a
slow free processor never takes the last job that a fast busy one would finish sooner (the trap of
pull policies in the ETRI study).

Three things are added:
- Urgency is the deadline, given or implied (`patience_s` after arrival), less `boost_s` per level
  of priority. It does not change while a request waits, so nothing starves.
- A processor made of several units keeps others waiting. Its time counts once for every waiting
  request that could have had one of its units.
- Processors that meet the deadline go before those that do not; a droppable request that no
  processor can finish in time any more is dropped at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from coinfer.core.lane import LaneKey
from coinfer.core.policy import Drop, Start
from coinfer.core.request import Request
from coinfer.core.view import View

__all__ = ["EarliestFinish"]


class _Choice(NamedTuple):
    misses: bool
    score: float
    finish_s: float
    processor: str


@dataclass(slots=True, kw_only=True)
class EarliestFinish:
    """Serve every request where it finishes first, waiting for a busy processor if that pays.

    Attributes:
        patience_s: Implied relative deadline of requests that have none, in seconds.
        boost_s: Seconds by which one level of priority makes a request more urgent.
        window: How many waiting requests one decision looks at.
    """

    patience_s: float = 1.0
    boost_s: float = 0.1
    window: int = 32

    def rank(self, request: Request) -> float:
        """Order by urgency."""
        due = request.deadline_s
        if due == math.inf:
            due = request.arrival_s + self.patience_s
        return due - request.priority * self.boost_s

    def decide(self, view: View) -> Iterator[Start | Drop]:
        """Start what a free processor finishes first; drop what cannot be met any more."""
        while (decision := self._next(view)) is not None:
            yield decision

    def _next(self, view: View) -> Start | Drop | None:
        """Return the first decision, or None if everything had better wait."""
        idle = view.idle()
        if not idle:
            return None
        free_at = view.units_free_at()
        waiting = view.n_waiting
        for at, (lane, request) in enumerate(islice(view.in_order(), self.window)):
            if view.is_hopeless(lane.key, request):
                return Drop(request, "no processor can meet its deadline any more")
            choice = _best(view, lane.key, request, free_at, waiting - at)
            if choice is None:
                continue
            if choice.processor in idle and _is_free(view, choice.processor, free_at):
                return Start(choice.processor, (request,))
            for unit in view.processors[choice.processor].units:
                free_at[unit] = choice.finish_s
        return None


def _is_free(view: View, processor: str, free_at: dict[str, float]) -> bool:
    """Tell whether nobody more urgent has reserved one of the processor's units."""
    return free_at.keys().isdisjoint(view.processors[processor].units)


def _best(
    view: View, key: LaneKey, request: Request, free_at: dict[str, float], waiting: int
) -> _Choice | None:
    """Return where the request finishes first, others considered; None if nothing can run it."""
    best: _Choice | None = None
    now = view.now
    for name, processor in view.processors.items():
        seconds = view.expected_s(key, name)
        if seconds == math.inf:
            continue
        start = now
        for unit in processor.units:
            start = max(start, free_at.get(unit, now))
        finish = start + seconds
        # Each waiting request beyond this one could have used one of the other units.
        score = start + seconds * min(len(processor.units), waiting)
        choice = _Choice(finish > request.deadline_s, score, finish, name)
        if best is None or choice < best:
            best = choice
    return best
