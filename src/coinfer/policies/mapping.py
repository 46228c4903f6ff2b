"""Mapping: the loop that min-min, max-min and sufferage share. Does not know what goes first.

These rules were published for a batch of tasks that are mapped to machines one after the other:
choose a task, give it to the machine where it would finish first, count its time there, choose the
next. Here the same is done at every decision, as far as needed:

- Requests of one lane are interchangeable, so lanes are compared and not requests.
- If the chosen processor is free, the request starts. If it is busy, its time there is counted as
  reserved and the next one is chosen; so a slow free processor never takes what a fast busy one
  would finish sooner. After `window` reservations a lane is set aside, and free processors are not
  tried for that are too slow for any lane of that length.
- A run on several units counts its time once for each of them, as far as as many requests wait.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coinfer.core.lane import Lane
from coinfer.core.policy import Start, WaitUntil
from coinfer.core.request import Request
from coinfer.core.view import View
from coinfer.errors import ConfigurationError
from coinfer.policies.one_by_one import OneByOne, look_again_s

__all__ = ["Completion", "ListMapping", "Wait", "completion", "others_finish", "waits_of"]


_LEAST_S = 1e-9
"""No run takes less: an estimate may come close to 0."""


class Wait(NamedTuple):
    """What a request would find at a processor.

    Attributes:
        processor: Its name.
        wait_s: Seconds until it is free.
        service_s: Seconds of a run.
    """

    processor: str
    wait_s: float
    service_s: float


class Completion(NamedTuple):
    """Where a lane's next request would finish first: the best of its offers.

    Attributes:
        lane: The lane.
        processor: Where.
        finish_s: When it would really finish there.
        completion_s: The same, a run on several units counted as often: what rules compare.
        sufferage_s: How much later it would complete on the second best; infinite without one.
        touches: Units of both processors; while none of them is reserved, this holds.
    """

    lane: Lane
    processor: str
    finish_s: float
    completion_s: float
    sufferage_s: float
    touches: frozenset[str]


@dataclass(slots=True, kw_only=True)
class ListMapping(OneByOne):
    """Base of the rules that differ only in which request is mapped next.

    Attributes:
        patience_s: A request that has waited this many seconds is mapped before all others.
            Infinite is the rule as published.
        window: Reservations per lane that one decision makes.
    """

    patience_s: float = math.inf
    window: int = 64

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        if not self.patience_s >= 0 or self.window < 1:
            raise ConfigurationError(
                f"policy {type(self).__name__!r}: patience_s must not be negative, "
                "window must be at least 1"
            )

    @abstractmethod
    def order(self, completion: Completion) -> float:
        """Return a number that is smaller the sooner the request is mapped."""

    def place(self, view: View, lane: Lane, _request: Request) -> str | None:
        """Give a lone request to where it finishes first, if that is free now."""
        seconds, free_at = view.offered_s(lane), view.units_free_at()
        if not seconds:
            return None  # all that could run it are out of service
        chosen = completion(view, lane, seconds, free_at, 1).processor
        return chosen if view.processors[chosen].units.isdisjoint(free_at) else None

    def next(self, view: View) -> Start | WaitUntil | None:
        """Start what is mapped to a free processor."""
        unclaimed = set(view.idle()) if view.n_waiting else None
        if not unclaimed:
            return None
        now, waiting = view.now, view.n_waiting
        free_at, held = view.units_free_at(), view.residency()
        left = {lane: min(len(lane), self.window) for lane in view.lanes()}
        seconds_of = {lane: view.offered_s(lane) for lane in left}
        completions = {
            lane: completion(view, lane, seconds, free_at, waiting)
            for lane, seconds in seconds_of.items()
        }
        again_s = math.inf
        while unclaimed and completions:
            chosen = self._first(completions, now)
            lane, name, finish_s = chosen[:3]
            if name in unclaimed and (lane.is_open or lane.may_start(name, now)):
                return Start(name, (lane.head,))
            if again_s == math.inf:
                again_s = look_again_s(now, seconds_of[lane], name, unclaimed)
                unclaimed = _within_reach(view, unclaimed, left, seconds_of, free_at)
            reserved = view.processors[name].units
            left[lane] -= 1
            for rider in view.reserve(lane, name, finish_s, free_at, held):
                riding = view.lane_of(rider)
                left[riding] -= 1
                if left[riding] <= 0 and riding is not lane:
                    completions.pop(riding, None)
            if held is not None:  # what the processor holds then changes its times
                seconds_of = {each: view.offered_s(each, held) for each in seconds_of}
            unclaimed.difference_update(view.sharing(name))
            if left[lane] <= 0:
                del completions[lane]
            for other, known in completions.items():
                if held is not None or not reserved.isdisjoint(known.touches):
                    completions[other] = completion(
                        view, other, seconds_of[other], free_at, waiting
                    )
        return WaitUntil(again_s) if now < again_s < math.inf else None

    def _first(self, completions: Mapping[Lane, Completion], now: float) -> Completion:
        if len(completions) == 1:
            return next(iter(completions.values()))
        late = now - self.patience_s
        overdue = [each for lane, each in completions.items() if lane.head.arrival_s <= late]
        if overdue:
            return min(overdue, key=lambda each: each.lane.head_rank)
        return min(completions.values(), key=lambda each: (self.order(each), each.lane.head_rank))


def completion(
    view: View, lane: Lane, seconds: Mapping[str, float], free_at: Mapping[str, float], waiting: int
) -> Completion:
    """Find where a request would finish first.

    Args:
        view: What is known.
        lane: Its lane.
        seconds: Expected seconds by processor in service; at least one.
        free_at: When busy units will be free.
        waiting: How many requests wait, this one included.
    """
    now, processors = view.now, view.processors
    if lane.ready_s:
        seconds = view.waited_s(lane, seconds, free_at)
    best = second = (math.inf, math.inf)
    chosen = runner_up = ""
    for name, service_s in seconds.items():
        units = processors[name].units
        start = now
        for unit in units:
            free = free_at.get(unit, now)
            if free > start:
                start = free
        finish = start + service_s
        wide = len(units)
        value = (finish if wide == 1 else start + service_s * min(wide, waiting), finish)
        if value < best:
            second, runner_up = best, chosen
            best, chosen = value, name
        elif value < second:
            second, runner_up = value, name
    touches = processors[chosen].units
    if runner_up:
        touches = touches | processors[runner_up].units
    return Completion(lane, chosen, best[1], best[0], second[0] - best[0], touches)


def waits_of(view: View, seconds: Mapping[str, float], free_at: Mapping[str, float]) -> list[Wait]:
    """List the processors of these seconds of a lane, with what a request waits there."""
    now, processors = view.now, view.processors
    return [
        Wait(name, max([free_at.get(unit, now) for unit in processors[name].units]) - now, service)
        for name, service in seconds.items()
    ]


def _waits(
    view: View, lane: Lane, seconds: Mapping[str, float], free_at: Mapping[str, float]
) -> list[Wait]:
    """List the waits of a lane, which may not be ready everywhere."""
    waited_s = view.waited_s(lane, seconds, free_at) if lane.ready_s else seconds
    return waits_of(view, waited_s, free_at)


def others_finish(waits: Sequence[Wait], processor: str, service_s: float, count: int) -> bool:
    """Tell whether others would finish `count` runs before this processor could finish one.

    A run that they would finish at the very same moment does not count: otherwise two processors
    could leave the work to each other.
    """
    for name, wait_s, other_s in waits:
        left_s = service_s - wait_s
        if left_s > other_s and name != processor:
            count -= math.ceil(left_s / max(other_s, _LEAST_S)) - 1
            if count <= 0:
                return True
    return False


def _within_reach(
    view: View,
    unclaimed: set[str],
    left: Mapping[Lane, int],
    seconds_of: Mapping[Lane, Mapping[str, float]],
    free_at: Mapping[str, float],
) -> set[str]:
    """Return the free processors that some lane alone would come to: others are not tried for."""
    waits = {lane: _waits(view, lane, seconds_of[lane], free_at) for lane in left}
    return {
        wait.processor
        for lane, row in waits.items()
        for wait in row
        if wait.processor in unclaimed
        and not others_finish(row, wait.processor, wait.service_s, left[lane])
    }
