"""Loading: what is loaded next, and what makes room for it. The rules of memories with a budget.

They apply while something that can be loaded is not (`Residency.is_tight`). One place is loaded at
a time. In this order:
1. What a lane needs of which nothing is loaded: the oldest request that has started goes first,
   then as the policy orders. So a request that has started always gets its next span.
2. What running requests need next, to be there when they are.
3. What fits into the room that is left, as long as nobody needs that.

Only what runs is in use, and it is never evicted. A place from which something waits to be served
stays until that is done, or until an older request needs its room and it was there for so many
times the seconds of both loads (`RESIDENCE`): changing back and forth may not take more time than
that leaves. Nothing more starts from a place that must go and is running. What else must go is
what it is cheapest to be without (`coinfer.core.eviction`).

Beside urgent requests the loader rests as long as it worked, unless it loads for an urgent one. A
place that cannot be loaded is tried once more; then those that have no other way fail there, as if
a run of theirs had.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from coinfer.core.commands import Evict, Load
from coinfer.core.events import Loaded, LoadFailed, MemoryGiven
from coinfer.core.eviction import Eviction, room_from
from coinfer.core.lane import Lane
from coinfer.core.needs import Allows, Need, needs_of, options_of
from coinfer.core.place import Place
from coinfer.core.popularity import Popularity
from coinfer.core.progress import Progress
from coinfer.core.request import Request
from coinfer.core.state import State
from coinfer.core.waits import Waits
from coinfer.units import format_bytes

__all__ = ["RESIDENCE", "Loading"]

RESIDENCE = 4.0
"""Times the seconds of both loads that a place stays if somebody waits for it."""

_FAR_S = 3600.0
"""Seconds that stand for never, where a lane has other ways: a policy may add to them."""

_RETRY_S, _MOST_RETRY_S = 0.1, 60.0
"""After a failure; twice as long after each further one."""


@dataclass(slots=True, eq=False)
class Loading:
    """Loads and evicts places, and holds back lanes of which nothing is loaded.

    Attributes:
        allows: Where a policy serves a lane at all.
        popularity: How often what is asked for.
        in_flight: What is being loaded; None if nothing is.
        held: Lanes that are held back.
    """

    _state: State
    _waits: Waits
    allows: Allows
    popularity: Popularity = field(default_factory=Popularity)
    _eviction: Eviction = Eviction.COST
    _most_models: int = 0
    in_flight: Place | None = None
    _rest_until_s: float = -math.inf
    _again_s: float = math.inf
    _beside_urgent: bool = False
    _has_refused: bool = False
    held: list[Lane] = field(default_factory=list)
    _guards: dict[Place, Need] = field(default_factory=dict)
    _soon: set[Place] = field(default_factory=set)
    _draining: set[Place] = field(default_factory=set)
    _blocked: set[str] = field(default_factory=set)

    # events

    def give(self, event: MemoryGiven) -> None:
        """Take in how much room there is; what no longer fits is evicted."""
        residency = self._state.residency
        residency.give(event.budgets)
        self._eviction = Eviction(event.eviction)
        self._most_models = event.most_models
        if any(pool.taken > pool.capacity for pool in residency.pools.values()):
            residency.is_tight = True
            self._state.mark_lanes()

    def loaded(self, event: Loaded) -> None:
        """Take note that a place is there."""
        place = self._ended(event.place)
        if place is None:
            return
        place.is_loaded = True
        place.failures = 0
        place.since_s = self._state.now
        place.load_s += 0.5 * (event.seconds - place.load_s)
        self._rest_until_s = self._state.now + event.seconds
        self._state.residency.look()
        if not self._state.residency.is_tight:
            self._state.mark_lanes()

    def failed(self, event: LoadFailed) -> None:
        """Try it later; after a second failure let those fail that have no other way."""
        state, place = self._state, self._ended(event.place)
        if place is None:
            return
        state.residency.pool(place).drop(place.id)
        retry_s = _RETRY_S * 2.0 ** min(place.failures, 30)
        place.failures += 1
        place.retry_s = state.now + min(retry_s, _MOST_RETRY_S)
        if place.failures > 1:
            for need in needs_of(state, self.allows):
                if all(self._cannot_help(o.place, place) for o in need.options):
                    self._refuse(need, f"it cannot be loaded: {event.reason}")

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

    # before the policy is asked

    def settle(self, deferred: Collection[Lane] = ()) -> float:
        """Ask for what is needed, hold back what it is needed for; return when to look again.

        Args:
            deferred: Lanes that are held back for another reason.
        """
        state = self._state
        if not state.residency.is_tight:  # it was until now
            self._release([])
            return math.inf
        self._again_s = math.inf
        self._draining.clear()
        self._blocked.clear()
        self._note_running()
        self._has_refused = True
        while self._has_refused:  # what was refused there may need something else now
            self._has_refused = False
            needs = sorted(needs_of(state, self.allows), key=_order)
            self._guard(needs)
            self._shrink()
            self._load_needed(needs)
        self._hold_back(needs, deferred)
        return self._again_s

    def _guard(self, needs: Sequence[Need]) -> None:
        """Find out which places something waits for that could be served now."""
        self._guards.clear()
        for need in needs:
            self._beside_urgent = self._beside_urgent or _is_urgent(need.head.request)
            place = need.best()
            # Of places that are not kept for whom they serve, each still is used once.
            if place is not None and (self._eviction is Eviction.COST or place.is_fresh):
                self._guards.setdefault(place, need)

    def _note_running(self) -> None:
        """Find out what running requests need next, and whether they are urgent."""
        state = self._state
        self._soon.clear()
        self._beside_urgent = False
        for execution in state.running.values():
            self._beside_urgent = self._beside_urgent or any(map(_is_urgent, execution.requests))
            at = execution.span.last + 1
            if at < state.units[execution.variant]:
                lane = state.requests[execution.requests[0].id].lane
                for option in options_of(state, lane, at, self.allows):
                    if option.place is not None:
                        self._soon.add(option.place)

    def _load_needed(self, needs: Sequence[Need]) -> None:
        for need in needs:
            if self._has_refused:
                return
            if need.is_met() or any(o.place and o.place.is_loading for o in need.options):
                continue
            place = self._wanted(need)
            if place is None or place.pool in self._blocked:
                continue
            may_load = self.in_flight is None and not self._rests(need.head.request)
            if may_load and self._makes_room(place, need):
                self._load(place)
                place.is_fresh = True
            else:
                self._blocked.add(place.pool)

    def _wanted(self, need: Need) -> Place | None:
        """Return what is to be loaded for a lane; refuse its requests if nothing ever can be."""
        now, best, least_s, smallest = self._state.now, None, math.inf, math.inf
        for option in need.options:
            place = option.place
            assert place is not None
            if place.is_loaded:  # but must go
                smallest = -math.inf
                continue
            if place.size > self._state.residency.pool(place).capacity:
                smallest = min(smallest, place.size)
                continue
            smallest = -math.inf
            if place.retry_s > now:
                self._again_s = min(self._again_s, place.retry_s)
            elif place.load_s + option.seconds < least_s:
                best, least_s = place, place.load_s + option.seconds
        if 0 < smallest < math.inf:
            self._refuse(need, f"loading it needs {format_bytes(smallest)}, more than memory has")
        return best

    def _rests(self, request: Request) -> bool:
        """Tell whether the loader must rest beside urgent requests before it loads for this one."""
        if not self._beside_urgent or _is_urgent(request) or self._rest_until_s <= self._state.now:
            return False
        self._again_s = min(self._again_s, self._rest_until_s)
        return True

    def _makes_room(self, place: Place, need: Need | None) -> bool:
        """Evict what must go for a place; tell whether there is room now.

        Args:
            place: What is to be loaded.
            need: Who waits for it; None: nobody yet.
        """
        missing = self._state.residency.pool(place).lacks(place.size)
        crowd = self._crowd(place)
        if not missing and not crowd:
            return True
        groups = self._who_may_go(place, need)
        if crowd:
            gone = [each for each in crowd if any(each in group for group in groups)]
            chosen = gone if len(gone) == len(crowd) else None
            if chosen is not None and sum(each.size for each in gone) < missing:
                chosen = room_from(groups, missing, self._worth)
                chosen = None if chosen is None else list({*gone, *chosen})
        else:
            chosen = room_from(groups, missing, self._worth)
        if chosen is None:
            return False
        running = [each for each in chosen if each.running]
        if running:
            self._draining.update(running)
            return False
        for each in sorted(chosen, key=_number):
            self._evict(each)
        return True

    def _who_may_go(self, place: Place, need: Need | None) -> list[list[Place]]:
        """Return the places that may be evicted for another one, those that had better first."""
        idle: list[Place] = []
        runs: list[Place] = []
        due: list[Place] = []
        due_runs: list[Place] = []
        for other in self._state.residency.loaded():
            if other.pool != place.pool or other.is_pinned:
                continue
            guard = self._guards.get(other)
            if guard is None and other not in self._soon:
                (runs if other.running else idle).append(other)
            elif need is not None and (guard is None or guard.yields_to(need)):
                until_s = other.since_s + RESIDENCE * (other.load_s + place.load_s)
                if until_s <= self._state.now:
                    (due_runs if other.running else due).append(other)
                else:
                    self._again_s = min(self._again_s, until_s)
        return [idle] if need is None else [idle, runs, due, due_runs]

    def _crowd(self, place: Place) -> list[Place]:
        """Return what must go because too many models are loaded: those used longest ago."""
        if not self._most_models:
            return []
        residency = self._state.residency
        models: dict[str, list[Place]] = {}
        for number in residency.pool(place).held:
            other = residency.places.get(number) if isinstance(number, int) else None
            if other is not None and other.variants[0] != place.variants[0]:
                models.setdefault(other.variants[0], []).append(other)
        too_many = max(0, len(models) + 1 - self._most_models)
        return [each for model in list(models)[:too_many] for each in models[model]]

    def _worth(self, place: Place) -> float:
        """Return what it costs to be without a place, by the byte, or when it was last used."""
        if self._eviction is Eviction.LRU:
            return list(self._state.residency.pool(place).held).index(place.id)
        return self.popularity.of(place.variants) * place.load_s / max(place.size, 1.0)

    def _shrink(self) -> None:
        """Evict what a budget that became smaller has no room for, as soon as it does not run."""
        residency = self._state.residency
        for name, pool in residency.pools.items():
            if pool.taken > pool.capacity:
                mine = [place for place in residency.loaded() if place.pool == name]
                idle = [place for place in mine if not place.running]
                runs = [place for place in mine if place.running]
                missing = pool.taken - pool.capacity
                chosen = room_from([idle], missing, self._worth)
                if chosen is None:
                    chosen = idle
                    self._draining.update(runs)
                for place in chosen:
                    self._evict(place)

    def _hold_back(self, needs: Sequence[Need], deferred: Collection[Lane]) -> None:
        """Let lanes start only where what they need is there, and say when it should be.

        Policies see those that can go on somewhere, and urgent ones for which something is under
        way, to keep a processor for them. For the others it is not known when they can.
        """
        state, now, held = self._state, self._state.now, list[Lane]()
        free_s = end_s = now
        unmet, n_units = 0, state.all_units.bit_count()
        if self.in_flight is not None:
            end_s = self.in_flight.since_s + self.in_flight.load_s
            free_s = end_s = end_s if end_s > now else now + max(now - end_s, 1e-3)
        for need in needs:
            lane = need.lane
            ready_s = dict(lane.ready_s) if lane in deferred else {}
            is_met = need.is_met(self._draining)
            if self._eviction is Eviction.LRU and unmet >= n_units:  # nobody overtakes so many
                is_met = False
            is_coming = any(o.place and o.place.is_loading for o in need.options)
            for _, name, place in need.options:
                if place is None or (place.is_loaded and place not in self._draining):
                    continue
                if place.is_loading:
                    at_s = end_s
                elif is_met or is_coming:
                    at_s = now + _FAR_S
                else:
                    at_s = max(free_s, place.retry_s) + place.load_s
                ready_s[name] = max(at_s, ready_s.get(name, at_s), now + 1e-6)
            if self.allows is not None:  # a policy may allow more than it did, once it has started
                for _, name, place in options_of(state, lane, lane.key.position, None):
                    if place is not None and not place.is_loaded:
                        ready_s.setdefault(name, now + _FAR_S)
            unmet += not is_met
            if not is_met and not is_coming:
                free_s += min([o.place.load_s for o in need.options if o.place], default=0.0)
            is_ready = is_met or (is_coming and _is_urgent(need.head.request))
            if is_ready:
                state.show(lane)
            else:
                state.hide(lane)
            if ready_s or lane.ready_s or not is_ready:
                state.hold_back(lane, ready_s)
                held.append(lane)
        self._release(held)
        self.held = held

    def _release(self, held: Sequence[Lane]) -> None:
        """Let all lanes start that were held back, but for these."""
        for lane in self.held:
            if lane not in held:
                self._state.show(lane)
                self._state.hold_back(lane, {})
        self.held = []

    # after the policy decided

    def prefetch(self) -> float:
        """Load what will be needed, if nothing else is loaded; return when to look again."""
        state, residency = self._state, self._state.residency
        if self.in_flight is not None or not residency.is_tight:
            return math.inf
        if self._beside_urgent and self._rest_until_s > state.now:
            return self._rest_until_s
        self._note_running()
        for execution in state.running.values():
            at = execution.span.last + 1
            if at >= state.units[execution.variant]:
                continue
            lane = state.requests[execution.requests[0].id].lane
            options = options_of(state, lane, at, self.allows)
            places = [o.place for o in options if o.place and self._may_load(o.place)]
            if len(places) == len(options) and places:
                place = min(places, key=_load_s)
                if place.pool not in self._blocked and self._makes_room(place, None):
                    self._load(place)
                    return math.inf
        self._fill()
        return math.inf

    def _fill(self) -> None:
        """Load what it is dearest to be without of what fits."""
        residency = self._state.residency
        found = [
            place
            for place in residency.places.values()
            if self._may_load(place)
            and place.pool not in self._blocked
            and residency.pool(place).fits(place.size)
            and not self._crowd(place)
        ]
        if found:
            self._load(max(found, key=self._gain))

    def _gain(self, place: Place) -> tuple[float, int]:
        worth = self.popularity.of(place.variants) * place.load_s / max(place.size, 1.0)
        return worth, -place.id

    def _may_load(self, place: Place) -> bool:
        return not (place.is_loaded or place.is_loading) and place.retry_s <= self._state.now

    # commands

    def _load(self, place: Place) -> None:
        state = self._state
        state.residency.pool(place).use(place.id, place.size)
        place.is_loading, place.is_fresh = True, False
        place.since_s = state.now
        self.in_flight = place
        what = place.variants[0], place.span, place.processors
        state.commands.append(Load(place.id, *what, place.load_s, round(place.size)))

    def _evict(self, place: Place) -> None:
        state = self._state
        assert not place.running
        state.residency.pool(place).drop(place.id)
        place.is_loaded = False
        state.residency.is_tight = True
        state.commands.append(Evict(place.variants[0], place.id, place.span, place.processors))

    # failures

    def _cannot_help(self, other: Place | None, failed: Place) -> bool:
        """Tell whether a lane cannot go on from a place, now that another one failed."""
        if other is None or other.is_loaded or other.is_loading:
            return False
        return other is failed or other.failures > 1

    def _refuse(self, need: Need, reason: str) -> None:
        """Let what waits in a lane fail on all processors, as if its runs had failed there."""
        self._has_refused = True
        state, lane = self._state, need.lane
        names = frozenset(option.processor for option in need.options)
        for request in list(lane.in_order()):
            progress: Progress = state.requests[request.id]
            where = ", ".join(sorted(names))
            text = f"model {lane.variant!r} on processor {where}: {reason}"
            progress.failures = (*progress.failures, text)
            state.dequeue(progress)
            key = lane.key
            progress.lane = state.lane(key._replace(excluded=key.excluded | names))
            self._waits.try_again(progress, key.position, lane.variant)


def _order(need: Need) -> tuple[object, ...]:
    return need.order


def _number(place: Place) -> int:
    return place.id


def _load_s(place: Place) -> float:
    return place.load_s


def _is_urgent(request: Request) -> bool:
    return request.deadline_s < math.inf or request.priority > 0
