"""Prefetch: what is loaded though nobody waits for it.

What running requests need next, to be there when they are; then what fits into the room that is
left, what it is dearest to be without first, as long as nobody needs that room.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from coinfer.core.demand import Demand
from coinfer.core.needs import options_of
from coinfer.core.place import Place
from coinfer.core.room import Room
from coinfer.core.state import State
from coinfer.core.transfers import Transfers

__all__ = ["Prefetch"]


@dataclass(slots=True, eq=False)
class Prefetch:
    """Loads ahead, if nothing else is loaded."""

    _state: State
    _demand: Demand
    _room: Room
    _transfers: Transfers

    def begin(self, blocked: Collection[str]) -> float:
        """Load what will be needed; return when to look again.

        Args:
            blocked: Memories in which somebody waits for room.
        """
        state, residency, transfers = self._state, self._state.residency, self._transfers
        if transfers.in_flight is not None or not residency.is_tight:
            return math.inf
        demand = self._demand
        if demand.is_urgent and transfers.rest_until_s > state.now:
            return transfers.rest_until_s
        demand.look_at_running()
        for execution in state.running.values():
            at = execution.span.last + 1
            if at >= state.units[execution.variant]:
                continue
            lane = state.requests[execution.requests[0].id].lane
            options = options_of(state, lane, at, demand.allows)
            places = [o.place for o in options if o.place and transfers.may_load(o.place)]
            if len(places) == len(options) and places:
                place = min(places, key=_load_s)
                if place.pool not in blocked and self._room.make(place, None):
                    transfers.load(place)
                    return math.inf
        self._fill(blocked)
        return math.inf

    def _fill(self, blocked: Collection[str]) -> None:
        found = [
            place
            for place in self._state.residency.places.values()
            if self._transfers.may_load(place)
            and place.pool not in blocked
            and self._room.fits(place)
        ]
        if found:
            self._transfers.load(max(found, key=self._room.gain))


def _load_s(place: Place) -> float:
    return place.load_s
