"""Transfers: loads, one at a time, and evictions. Knows neither why nor what for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from coinfer.core.commands import Evict, Load
from coinfer.core.place import Place
from coinfer.core.request import Request
from coinfer.core.state import State

__all__ = ["Transfers"]

_RETRY_S, _MOST_RETRY_S = 0.1, 60.0
"""After a failure; twice as long after each further one."""


@dataclass(slots=True, eq=False)
class Transfers:
    """Asks for loads and evictions, and takes note of how loads end.

    Attributes:
        in_flight: What is being loaded; None if nothing is.
        rest_until_s: The moment until which the loader rests beside urgent requests.
        again_s: The moment from which something can be loaded or evicted that cannot be now.
    """

    _state: State
    in_flight: Place | None = None
    rest_until_s: float = -math.inf
    again_s: float = math.inf

    @property
    def free_s(self) -> float:
        """When the next load could begin: now, or when that under way should end."""
        now, place = self._state.now, self.in_flight
        if place is None:
            return now
        end_s = place.since_s + place.load_s
        return end_s if end_s > now else now + max(now - end_s, 1e-3)

    def look_again(self, at_s: float) -> None:
        """Note a moment from which something can be done that cannot be done now."""
        self.again_s = min(self.again_s, at_s)

    def may_load(self, place: Place) -> bool:
        """Tell whether a place is not there and may be tried now."""
        is_there = place.is_loaded or place.is_loading or place.is_retired
        return not is_there and place.retry_s <= self._state.now

    def rests(self, request: Request) -> bool:
        """Tell whether the loader must rest beside urgent requests before it loads for this one."""
        if request.is_urgent or self.rest_until_s <= self._state.now:
            return False
        self.look_again(self.rest_until_s)
        return True

    def load(self, place: Place) -> None:
        """Ask for a place; nothing else may be on its way."""
        state = self._state
        state.residency.pool(place).use(place.id, place.size)
        place.is_loading = place.is_fresh = True
        place.since_s = state.now
        self.in_flight = place
        what = place.variants[0], place.span, place.processors
        state.commands.append(Load(place.id, *what, place.load_s, round(place.size)))

    def evict(self, place: Place) -> None:
        """Give up a place that nothing uses."""
        state = self._state
        assert not place.running
        state.residency.pool(place).drop(place.id)
        place.is_loaded = False
        state.residency.is_tight = True
        state.commands.append(Evict(place.variants[0], place.id, place.span, place.processors))

    def loaded(self, number: int, seconds: float) -> bool:
        """Take note that a place is there; tell whether anybody still needs it."""
        place = self._ended(number)
        if place is None:
            return False
        now = self._state.now
        place.is_loaded = True
        place.failures = 0
        place.since_s = now
        place.load_s += 0.5 * (seconds - place.load_s)
        self.rest_until_s = now + seconds
        return True

    def failed(self, number: int) -> Place | None:
        """Take note that a place cannot be loaded now; return it if anybody still needs it."""
        place = self._ended(number)
        if place is None:
            return None
        self._state.residency.pool(place).drop(place.id)
        retry_s = _RETRY_S * 2.0 ** min(place.failures, 30)
        place.failures += 1
        place.retry_s = self._state.now + min(retry_s, _MOST_RETRY_S)
        return place

    def _ended(self, number: int) -> Place | None:
        """Return the place whose load has ended; None if nobody needs it any more."""
        place = self.in_flight
        if place is None or place.id != number:
            return None
        self.in_flight = None
        place.is_loading = False
        if place.variants:
            return place
        self._state.residency.pool(place).drop(number)  # its model left meanwhile
        return None
