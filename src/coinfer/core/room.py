"""Room: which places are evicted for another one, and when.

Only what runs is in use, and it is never evicted. A place from which something waits to be served
stays until that is done, or until an older request needs its room and it was there for so many
times the seconds of both loads (`RESIDENCE`, `TOGETHER`): changing back and forth may not take more
time than that leaves. Nothing more starts from a place that must go and is running. What else must
go is what it is cheapest to be without (`coinfer.core.eviction`).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from coinfer.core.demand import Demand
from coinfer.core.eviction import Eviction, room_from
from coinfer.core.needs import Need
from coinfer.core.place import Place
from coinfer.core.state import State
from coinfer.core.transfers import Transfers

__all__ = ["RESIDENCE", "TOGETHER", "Room"]

RESIDENCE = 4.0
"""Times the seconds of both loads that a place stays if somebody waits for it."""

TOGETHER = 40.0
"""The same where the older request came no longer before than both loads take: of what comes as
good as at once, all is served that is loaded, before anything else is."""


@dataclass(slots=True, eq=False)
class Room:
    """Makes room.

    Attributes:
        eviction: What is evicted first.
        most_models: So many models may be loaded; 0: as many as have room.
        draining: What must go as soon as it does not run: nothing more starts there.
    """

    _state: State
    _demand: Demand
    _transfers: Transfers
    eviction: Eviction = Eviction.COST
    most_models: int = 0
    draining: set[Place] = field(default_factory=set)

    def make(self, place: Place, need: Need | None) -> bool:
        """Evict what must go for a place; tell whether there is room now.

        Args:
            place: What is to be loaded.
            need: Who waits for it; None: nobody yet.
        """
        missing = self._state.residency.pool(place).lacks(place.size)
        crowd = self.crowd(place)
        if not missing and not crowd:
            return True
        groups = self._who_may_go(place, need)
        if crowd:
            gone = [each for each in crowd if any(each in group for group in groups)]
            chosen = gone if len(gone) == len(crowd) else None
            if chosen is not None and sum(each.size for each in gone) < missing:
                chosen = room_from(groups, missing, self._dear)
                chosen = None if chosen is None else list({*gone, *chosen})
        else:
            chosen = room_from(groups, missing, self._dear)
        if chosen is None:
            return False
        running = [each for each in chosen if each.running]
        if running:
            self._drain(running)
            return False
        self._evict(sorted(chosen, key=_number))
        return True

    def begin(self) -> None:
        """Let what was to go stay, until it is found out anew what must go.

        What nothing will run from goes now, unless something still does.
        """
        residency = self._state.residency
        for place in self.draining:
            place.is_draining = False
        self.draining.clear()
        for variant in list(residency.retired):
            mine = [place for place in residency.places.values() if place.variants == [variant]]
            if not any(place.running or place.is_loading for place in mine):
                self._evict([place for place in mine if place.is_loaded])
                residency.forget(variant)
        if not residency.is_tight:
            self._state.mark_lanes()

    def fits(self, place: Place) -> bool:
        """Tell whether there is room for a place as it is."""
        return self._state.residency.pool(place).fits(place.size) and not self.crowd(place)

    def replace(self, place: Place) -> bool:
        """Evict for a place what is worth less than half of it together; tell whether that was."""
        pool = self._state.residency.pool(place)
        if place.size > self._state.residency.most(place) or self.crowd(place):
            return False
        [idle] = self._who_may_go(place, None)
        chosen = room_from([idle], pool.lacks(place.size), self._dear)
        if chosen is None:
            return False
        lost = sum(each.size * self.worth(each) for each in chosen)
        if 2 * lost > place.size * self.worth(place):
            return False
        self._evict(sorted(chosen, key=_number))
        return True

    def exchange(self, place: Place, need: Need, saved_s: float) -> bool:
        """Evict for a place what costs less to load again than it saves; tell whether that was.

        What must go was there for at least as long as both loads take, so that loading takes half
        of the time at most.

        Args:
            place: What is to be loaded.
            need: Who waits for it, and can go on without.
            saved_s: The seconds that it saves them, those of its load taken off.
        """
        if self.crowd(place):
            return False
        residency, demand = self._state.residency, self._demand
        groups = self._who_may_go(place, need)
        chosen = room_from(groups, residency.pool(place).lacks(place.size), self._dear)
        if chosen is None:
            return False
        mine = residency.popularity.of(place.variants)
        for each in chosen:  # it is needed again so often for each time that this one is
            theirs = residency.popularity.of(each.variants)
            often = theirs / mine if mine > 0 else math.inf
            if demand.has_other_way(each):
                saved_s -= each.load_s * min(1.0, often)
            elif often > 0:  # all that comes for it waits until it is back
                saved_s -= (each.load_s + place.load_s) * often
            until_s = each.since_s + each.load_s + place.load_s
            if until_s > self._state.now:
                self._transfers.look_again(until_s)
                return False
        if saved_s <= 0:
            return False
        if running := [each for each in chosen if each.running]:
            self._drain(running)
            return False
        self._evict(sorted(chosen, key=_number))
        return True

    def worth(self, place: Place) -> float:
        """Return what it costs to be without a place, by the byte."""
        popularity = self._state.residency.popularity.of(place.variants)
        return popularity * place.load_s / max(place.size, 1.0)

    def shrink(self) -> None:
        """Evict what a budget that became smaller has no room for, as soon as it does not run."""
        residency = self._state.residency
        for name, pool in residency.pools.items():
            if pool.taken > pool.capacity:
                mine = [place for place in residency.loaded() if place.pool == name]
                idle = [place for place in mine if not place.running]
                runs = [place for place in mine if place.running]
                free = [place for place in idle if not place.is_pinned]
                pinned = [place for place in idle if place.is_pinned]
                missing = pool.taken - pool.capacity
                chosen = room_from([free, pinned], missing, self._dear)
                if chosen is None:
                    chosen = idle
                    self._drain(runs)
                self._evict(chosen)

    def crowd(self, place: Place) -> list[Place]:
        """Return what must go because too many models are loaded: those used longest ago."""
        if not self.most_models:
            return []
        residency = self._state.residency
        models: dict[str, list[Place]] = {}
        for number in residency.pool(place).held:
            other = residency.places.get(number) if isinstance(number, int) else None
            if other is not None and other.variants[0] != place.variants[0]:
                models.setdefault(other.variants[0], []).append(other)
        too_many = max(0, len(models) + 1 - self.most_models)
        return [each for model in list(models)[:too_many] for each in models[model]]

    def _who_may_go(self, place: Place, need: Need | None) -> list[list[Place]]:
        """Return the places that may be evicted for another one, those that had better first."""
        idle: list[Place] = []
        runs: list[Place] = []
        due: list[Place] = []
        due_runs: list[Place] = []
        demand, residency = self._demand, self._state.residency
        for other in residency.loaded():
            if other.pool != place.pool or residency.is_kept(other):
                continue
            guard = demand.guards.get(other)
            if guard is None and other not in demand.soon:
                (runs if other.running else idle).append(other)
            elif need is not None and (guard is None or guard.yields_to(need)):
                loads_s = other.load_s + place.load_s
                until_s = other.since_s + RESIDENCE * loads_s
                if guard is not None and guard.came_with(need, loads_s):
                    since_s = max(other.since_s, need.head.request.arrival_s)
                    until_s = since_s + TOGETHER * loads_s
                if until_s <= self._state.now:
                    (due_runs if other.running else due).append(other)
                else:
                    self._transfers.look_again(until_s)
        return [idle] if need is None else [idle, runs, due, due_runs]

    def _dear(self, place: Place) -> float:
        """Return what it costs to evict a place: what it is worth, or when it was last used."""
        if self.eviction is Eviction.LRU:
            return list(self._state.residency.pool(place).held).index(place.id)
        return self.worth(place)

    def _drain(self, places: Collection[Place]) -> None:
        for place in places:
            place.is_draining = True
            self.draining.add(place)

    def _evict(self, places: Collection[Place]) -> None:
        for place in places:
            self._transfers.evict(place)


def _number(place: Place) -> int:
    return place.id
