"""Needs: what waiting requests must have loaded before they can go on. Loads nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeAlias

from coinfer.core.lane import Lane
from coinfer.core.place import Place
from coinfer.core.progress import Progress
from coinfer.core.state import State
from coinfer.core.substitutes import substitute_of

__all__ = ["Allows", "Need", "Option", "lent_to", "needs_of", "options_of"]

Allows: TypeAlias = Callable[[Lane, str], bool] | None
"""Tells whether a lane's requests may be served on a processor at all; None: on all of them."""


class Option(NamedTuple):
    """One way in which a lane could go on.

    Attributes:
        seconds: To the end of the model, as if everything were loaded.
        processor: Which processor would run the next span.
        place: What must be loaded for that; None: nothing.
    """

    seconds: float
    processor: str
    place: Place | None


class Need(NamedTuple):
    """What a lane needs.

    Attributes:
        lane: The lane.
        head: Its first request.
        options: The ways in which it could go on.
        lent: The ways in which something else that is loaded may serve it meanwhile, where nothing
            of its own is (`coinfer.core.substitutes`).
    """

    lane: Lane
    head: Progress
    options: list[Option]
    lent: tuple[Option, ...] = ()

    @property
    def order(self) -> tuple[int, Any]:
        """Who goes first: the oldest of those that have started, then as the policy says."""
        if self.head.started:
            return 0, (self.head.request.arrival_s, self.head.request.id)
        return 1, self.lane.head_rank

    def yields_to(self, other: Need) -> bool:
        """Tell whether another need is the older one, or the more urgent one if nobody started."""
        if other.head.started:
            return other.head.request.arrival_s < self.head.request.arrival_s
        if self.head.started:
            return False
        mine, theirs = self.lane.head_rank[0], other.lane.head_rank[0]
        return bool(theirs < mine)

    def came_with(self, other: Need, within_s: float) -> bool:
        """Tell whether a need is hardly older than this one: nobody started, nobody is urgent."""
        mine, theirs = self.head.request, other.head.request
        if self.head.started or other.head.started or mine.is_urgent or theirs.is_urgent:
            return False
        return mine.priority == theirs.priority and mine.arrival_s - theirs.arrival_s < within_s

    def best(self, but: Collection[Place] = ()) -> Place | None:
        """Return the place that is loaded from which it would be served soonest; None if none.

        Args:
            but: Places that count as not loaded.
        """
        found: Option | None = None
        for option in self.lent or self.options:
            place = option.place
            if place is None or not place.is_loaded or place in but:
                continue
            if found is None or option.seconds < found.seconds:
                found = option
        return None if found is None else found.place

    def is_met(self, but: Collection[Place] = ()) -> bool:
        """Tell whether it could go on now, if the processor were free."""
        for options in (self.options, self.lent):
            for option in options:
                if option.place is None or (option.place.is_loaded and option.place not in but):
                    return True
        return False

    @property
    def seconds(self) -> float:
        """The seconds to the end of the fastest way in which it could go on now; infinite: none."""
        found = math.inf
        for options in (self.options, self.lent):
            for seconds, _, place in options:
                if seconds < found and (place is None or place.is_loaded):
                    found = seconds
        return found

    def count_at(self, processors: Collection[str]) -> int:
        """Return on how many of some processors it could go on as things are."""
        return sum(
            name in processors and (place is None or place.is_loaded)
            for _, name, place in self.options
        )

    @property
    def load_s(self) -> float:
        """The seconds of the shortest load that it could wait for."""
        return min([o.place.load_s for o in self.options if o.place], default=0.0)


def options_of(state: State, lane: Lane, position: int, allows: Allows) -> list[Option]:
    """Return the ways in which requests of a lane could go on at a unit boundary."""
    residency, routes, excluded = state.residency, lane.routes, lane.excluded
    seconds = lane.seconds if position == lane.key.position or routes is None else {}
    if routes is not None:
        seconds = routes.seconds(position)
    found = []
    for name in state.in_service:
        if name in excluded or name not in seconds:
            continue
        if allows is not None and not allows(lane, name):
            continue
        span = lane.rest if routes is None else routes.step(position, name).span
        found.append(Option(seconds[name], name, residency.place(lane.variant, span, name)))
    return found


def needs_of(state: State, allows: Allows) -> list[Need]:
    """Return what each lane needs in which something waits."""
    return [
        Need(lane, state.requests[lane.head.id], options_of(state, lane, lane.key.position, allows))
        for lane in (*state.lanes, *state.unready)
    ]


def lent_to(state: State, need: Need) -> tuple[Option, ...]:
    """Return the ways in which something else may serve what needs its own."""
    found = []
    for _, processor, _ in need.options:
        other = substitute_of(state, need.lane, processor, need.head.request)
        if other is not None:
            variant, (span, _, seconds) = other
            place = state.residency.place(variant, span, processor)
            found.append(Option(seconds, processor, place))
    return tuple(found)
