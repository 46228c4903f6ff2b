"""Readiness: which lanes may start where, and when the others should. Loads nothing.

Policies see those that can go on somewhere, and urgent ones for which something is under way, to
keep a processor for them. For the others it is not known when they can.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from coinfer.core.demand import Demand
from coinfer.core.eviction import Eviction
from coinfer.core.lane import Lane
from coinfer.core.needs import Need, options_of
from coinfer.core.room import Room
from coinfer.core.state import State
from coinfer.core.transfers import Transfers

__all__ = ["Readiness"]

_FAR_S = 3600.0
"""Seconds that stand for never, where a lane has other ways: a policy may add to them."""


@dataclass(slots=True, eq=False)
class Readiness:
    """Holds lanes back of which something or all is not loaded.

    Attributes:
        held: Those.
    """

    _state: State
    _demand: Demand
    _room: Room
    _transfers: Transfers
    held: list[Lane] = field(default_factory=list)

    def settle(self, deferred: Collection[Lane]) -> None:
        """Let lanes start only where what they need is there, and say when it should be.

        Args:
            deferred: Lanes that are held back for another reason.
        """
        state, held = self._state, list[Lane]()
        unmet, n_units = 0, state.all_units.bit_count()
        free_s = end_s = self._transfers.free_s
        is_lru = self._room.eviction is Eviction.LRU
        kept_for = {need.lane for need in self._demand.guards.values()} if is_lru else ()
        for need in self._demand.needs:
            lane = need.lane
            is_met = need.is_met(self._room.draining)
            if is_lru and unmet >= n_units and lane not in kept_for:
                is_met = False  # nobody overtakes so many, unless they wait for the room of his
            is_coming = any(o.place and o.place.is_loading for o in need.options)
            is_waiting = not is_met and not is_coming
            ready_s = self._ready_s(need, free_s if is_waiting else math.inf, end_s)
            if lane in deferred:
                for name, at_s in lane.ready_s.items():
                    ready_s[name] = max(at_s, ready_s.get(name, at_s))
            unmet += not is_met
            if is_waiting:
                free_s += need.load_s
            lane.is_lent = bool(need.lent)
            is_ready = is_met or (is_coming and need.head.request.is_urgent)
            if is_ready:
                state.show(lane)
            else:
                state.hide(lane)
            if ready_s or lane.ready_s or not is_ready or lane.is_lent:
                state.hold_back(lane, ready_s)
                held.append(lane)
        self.release(but=held)
        self.held[:] = held

    def release(self, but: Sequence[Lane] = ()) -> None:
        """Let all lanes start that were held back, but for these."""
        for lane in self.held:
            if lane not in but:
                lane.is_lent = False
                self._state.show(lane)
                self._state.hold_back(lane, {})
        self.held.clear()

    def _ready_s(self, need: Need, free_s: float, end_s: float) -> dict[str, float]:
        """Return when a lane may start, by processor where it may not now.

        Args:
            need: What it needs.
            free_s: When the next load could begin for it; infinite: nothing more is loaded.
            end_s: When what is under way should be there.
        """
        state, now, lane = self._state, self._state.now, need.lane
        lent = {name for _, name, place in need.lent if place and not place.is_draining}
        ready_s = {}
        for _, name, place in need.options:
            if place is None or (place.is_loaded and not place.is_draining) or name in lent:
                continue
            if place.is_loading:
                at_s = end_s
            elif free_s == math.inf:
                at_s = now + _FAR_S
            else:
                at_s = max(free_s, place.retry_s) + place.load_s
            ready_s[name] = max(at_s, now + 1e-6)
        if self._demand.allows is not None:  # it may allow more than it did, once it has started
            for _, name, place in options_of(state, lane, lane.key.position, None):
                if place is not None and not place.is_loaded and name not in lent:
                    ready_s.setdefault(name, now + _FAR_S)
        return ready_s
