"""Earliest finish, with a gate: the default.

Rule: take the waiting requests by urgency. For each, the processor on which it would finish first,
counting the wait for busy ones (Band's "shortest expected latency" and minimum completion time of
Maheswaran et al., 1999, for one request). If that processor is free, start; if it is busy, the
request waits for it, its time there is counted as reserved, and the next request is looked at. So a
slow free processor never takes the last job that a fast busy one would finish sooner (the trap of
pull policies in the ETRI study). It is looked at again in case the busy one overruns.

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
from coinfer.core.policy import Decision, Drop, Start, WaitUntil
from coinfer.core.request import Request
from coinfer.core.view import View
from coinfer.errors import ConfigurationError

__all__ = ["EarliestFinish"]


_Option = tuple[str, frozenset[str], float]
"""A processor able to run a lane's requests: its name, its units, its expected seconds."""


class _Choice(NamedTuple):
    misses: bool
    score: float
    finish_s: float
    processor: str
    units: frozenset[str]
    seconds: float


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

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        if not self.patience_s >= 0 or not self.boost_s >= 0 or self.window < 1:
            raise ConfigurationError(
                "policy 'earliest_finish': patience_s and boost_s must not be negative, "
                "window must be at least 1"
            )

    def rank(self, request: Request) -> float:
        """Order by urgency."""
        due = request.deadline_s
        if due == math.inf:
            due = request.arrival_s + self.patience_s
        return due - request.priority * self.boost_s

    def decide(self, view: View) -> Iterator[Decision]:
        """Start what a free processor finishes first; drop what cannot be met any more."""
        while (decision := self._next(view)) is not None:
            yield decision
            if isinstance(decision, WaitUntil):
                return

    def _next(self, view: View) -> Decision | None:
        """Return the first decision, or None if everything had better wait."""
        unclaimed = set(view.idle()) if view.n_waiting else None
        if not unclaimed:
            return None
        now, waiting, free_at = view.now, view.n_waiting, view.units_free_at()
        options: dict[LaneKey, list[_Option]] = {}
        again_s = math.inf
        for at, (lane, request) in enumerate(islice(view.in_order(), self.window)):
            if view.is_hopeless(lane.key, request):
                return Drop(request, "no processor can meet its deadline any more")
            if lane.key not in options:
                options[lane.key] = _options(view, lane.key)
            choice = _best(options[lane.key], request.deadline_s, now, free_at, waiting - at)
            if choice.processor in unclaimed:
                return Start(choice.processor, (request,))
            if again_s == math.inf:
                again_s = now + _patience_s(options[lane.key], choice, unclaimed)
            for unit in choice.units:
                free_at[unit] = choice.finish_s
            unclaimed = {n for n in unclaimed if choice.units.isdisjoint(view.processors[n].units)}
            if not unclaimed:
                break
        return WaitUntil(again_s) if now < again_s < math.inf else None


def _options(view: View, key: LaneKey) -> list[_Option]:
    processors = view.processors
    return [(name, processors[name].units, s) for name, s in view.seconds_of(key).items()]


def _best(
    options: list[_Option], deadline_s: float, now: float, free_at: dict[str, float], waiting: int
) -> _Choice:
    """Return where a request finishes first, others considered.

    Others are considered in that each of the `waiting` requests, this one included, could have
    used one of the units: a run on several of them costs its time as often.
    """
    best: _Choice | None = None
    for name, units, seconds in options:
        start = now
        for unit in units:
            free = free_at.get(unit, now)
            if free > start:
                start = free
        finish = start + seconds
        misses = finish > deadline_s
        score = start + seconds * min(len(units), waiting)
        if best is None or (misses, score, finish) < best[:3]:
            best = _Choice(misses, score, finish, name, units, seconds)
    assert best is not None, "a request waits that no processor in service can run"
    return best


def _patience_s(options: list[_Option], choice: _Choice, unclaimed: set[str]) -> float:
    """Return how long to wait for a busy processor before free ones are considered again.

    They lose to it by the difference of the service times at least. If it is still busy after that
    long, something took longer than expected, and nothing else may happen that would show it.
    """
    others = [seconds for name, _, seconds in options if name in unclaimed]
    return max(min(others, default=math.inf) - choice.seconds, choice.seconds)
