"""Prefetch: what is loaded though nobody waits for it.

What running requests need next, to be there when they are. Then what is pinned. Then what fits into
the room that is left, what it is dearest to be without first, as long as nobody needs that room: of
what is equally dear, as at the start, fused variants before their members, and those last for which
one is there. At last the original of a model that cheaper variants serve, in place of what it is
half as dear to be without and nobody waits for.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
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
        able = [
            place
            for place in residency.places.values()
            if transfers.may_load(place) and place.pool not in blocked
        ]
        for place in able:
            if residency.is_kept(place) and self._room.make(place, None):
                transfers.load(place)
                return math.inf
        found = [place for place in able if self._room.fits(place)]
        if found:
            transfers.load(max(found, key=self._order))
        elif len(state.uses) > 0:
            self._make_more_accurate(able)
        return math.inf

    def _order(self, place: Place) -> tuple[float, int, int]:
        """Return what it is worth to load a place; comparable."""
        fusions, is_loaded = self._state.fusions, self._state.residency.is_loaded
        name, span, processor = place.variants[0], place.span, place.processors[0]
        is_served = any(is_loaded(each.name, span, processor) for each in fusions.of.get(name, ()))
        return self._room.worth(place), (name in fusions.by_name) - is_served, -place.id

    def _make_more_accurate(self, able: Sequence[Place]) -> None:
        variants, room = self._state.variants, self._room
        missed = [p for p in able if any(len(variants.get(name, ())) > 1 for name in p.variants)]
        for place in sorted(missed, key=room.worth, reverse=True):
            if room.replace(place):
                self._transfers.load(place)
                return


def _load_s(place: Place) -> float:
    return place.load_s
