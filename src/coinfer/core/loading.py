"""Loading: what is loaded next. The rules of memories with a budget.

They apply while something that can be loaded is not (`Residency.is_tight`). One place is loaded at
a time (`transfers`). In this order:
1. What a lane needs of which nothing is loaded: the oldest request that has started goes first,
   then as the policy orders. So a request that has started always gets its next span. What makes
   room for it: `room`.
2. What could go on, but so slowly that a load takes less.
3. What is loaded though nobody waits for it: `prefetch`.

Beside urgent requests the loader rests as long as it worked, unless it loads for an urgent one. A
place that cannot be loaded is tried once more; then those that have no other way fail there, as if
a run of theirs had. What lanes may start meanwhile: `readiness`.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from coinfer.core.demand import Demand
from coinfer.core.events import Loaded, LoadFailed, MemoryGiven
from coinfer.core.eviction import Eviction
from coinfer.core.lane import Lane
from coinfer.core.needs import Allows, Need, Option, needs_of
from coinfer.core.place import Place
from coinfer.core.prefetch import Prefetch
from coinfer.core.progress import Progress
from coinfer.core.readiness import Readiness
from coinfer.core.room import Room
from coinfer.core.state import State
from coinfer.core.transfers import Transfers
from coinfer.core.variants import MARGIN
from coinfer.core.waits import Waits
from coinfer.machine.span import Span
from coinfer.units import format_bytes

__all__ = ["Loading"]


@dataclass(slots=True, eq=False)
class Loading:
    """Loads and evicts places, and holds back lanes of which nothing is loaded.

    Attributes:
        allows: Where a policy serves a lane at all.
        held: The lanes that are held back; always the same list, and only to be read.
    """

    _state: State
    _waits: Waits
    allows: Allows
    _demand: Demand = field(init=False)
    _transfers: Transfers = field(init=False)
    _room: Room = field(init=False)
    _prefetch: Prefetch = field(init=False)
    _readiness: Readiness = field(init=False)
    held: list[Lane] = field(init=False)
    _has_refused: bool = False
    _blocked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Make the parts."""
        state = self._state
        self._transfers = transfers = Transfers(state)
        self._demand = demand = Demand(state, transfers, self.allows)
        self._room = room = Room(state, demand, transfers)
        self._prefetch = Prefetch(state, demand, room, transfers)
        self._readiness = Readiness(state, demand, room, transfers)
        self.held = self._readiness.held

    @property
    def is_busy(self) -> bool:
        """Whether something is being loaded."""
        return self._transfers.in_flight is not None

    def follow(self, allows: Allows) -> None:
        """Take note of where the policy that decides from now on serves a lane at all."""
        self.allows = self._demand.allows = allows

    def forget_lanes(self) -> None:
        """Hold nothing back: all lanes are made anew."""
        self.held.clear()

    # events

    def give(self, event: MemoryGiven) -> None:
        """Take in how much room there is; what no longer fits is evicted."""
        residency, room = self._state.residency, self._room
        residency.give(event.budgets)
        for variant, loadables in event.places.items():
            if variant in self._state.units and not residency.has_places(variant):
                residency.place_variant(variant, loadables)
                for execution in self._state.running.values():
                    if execution.variant == variant:
                        residency.begin(variant, execution.span, execution.processor)
        room.eviction = Eviction(event.eviction)
        room.most_models = event.most_models
        if any(pool.taken > pool.capacity for pool in residency.pools.values()):
            residency.is_tight = True
            self._state.mark_lanes()

    def loaded(self, event: Loaded) -> None:
        """Take note that a place is there."""
        if self._transfers.loaded(event.place, event.seconds):
            self._state.residency.look()
            if not self._state.residency.is_tight:
                self._state.mark_lanes()

    def failed(self, event: LoadFailed) -> None:
        """Try it later; after a second failure let those fail that have no other way."""
        place = self._transfers.failed(event.place)
        if place is not None and place.failures > 1:
            for need in needs_of(self._state, self.allows):
                if all(_cannot_help(option.place, place) for option in need.options):
                    self._refuse(need, f"it cannot be loaded: {event.reason}")

    # before the policy is asked

    def settle(self, deferred: Collection[Lane] = ()) -> float:
        """Ask for what is needed, hold back what it is needed for; return when to look again.

        Args:
            deferred: Lanes that are held back for another reason.
        """
        if self._state.residency.is_tight:
            self._room.begin()
        if not self._state.residency.is_tight:  # it was until now
            self._readiness.release()
            return math.inf
        self._transfers.again_s = math.inf
        self._blocked.clear()
        self._demand.look_at_running()
        self._has_refused = True
        while self._has_refused:  # what was refused there may need something else now
            self._has_refused = False
            # Of places that are not kept for whom they serve, each still is used once.
            self._demand.look_at_waiting(only_fresh=self._room.eviction is Eviction.LRU)
            self._room.shrink()
            self._load_needed()
        self._load_faster()
        self._readiness.settle(deferred)
        return self._transfers.again_s

    def _load_needed(self) -> None:
        transfers = self._transfers
        for need in self._demand.needs:
            if self._has_refused:
                return
            if need.is_met() or any(o.place and o.place.is_loading for o in need.options):
                continue
            place = self._wanted(need)
            if place is None or place.pool in self._blocked:
                continue
            may_load = transfers.in_flight is None
            if may_load and self._demand.is_urgent:
                may_load = not transfers.rests(need.head.request)
            if may_load and self._room.make(place, need):
                transfers.load(place)
            else:
                self._blocked.add(place.pool)

    def _load_faster(self) -> None:
        """Load for a lane that could go on, but is so slow there that a load takes less.

        So a network that has no room on a GPU is not left to a processor core for ever. Those that
        could start on an idle processor at once are not worth a load: a policy may let them.
        """
        transfers = self._transfers
        if transfers.in_flight is not None or self._room.eviction is Eviction.LRU:
            return
        idle = self._state.idle()
        for need in self._demand.needs:
            slow_s, waiting = need.seconds, len(need.lane) - need.count_at(idle)
            if waiting <= 0 or slow_s == math.inf:
                continue
            if any(o.place and o.place.is_loading for o in need.options):
                continue
            option = self._fastest(need, slow_s)
            if option is None or option.place is None or option.place.pool in self._blocked:
                continue
            if self._demand.is_urgent and transfers.rests(need.head.request):
                continue
            saved_s = waiting * (slow_s - option.seconds) - option.place.load_s
            if self._room.exchange(option.place, need, saved_s):
                transfers.load(option.place)
                return

    def _fastest(self, need: Need, slow_s: float) -> Option | None:
        """Return the way that is the fastest once it is loaded, if loading it takes less.

        Args:
            need: What a lane needs.
            slow_s: Seconds that it takes as things are.
        """
        found, most = None, self._state.residency.most
        for option in need.options:
            seconds, _, place = option
            if place is None or seconds + place.load_s >= slow_s or place.size > most(place):
                continue
            if self._transfers.may_load(place) and not place.failures:
                found, slow_s = option, seconds + place.load_s
        return found

    def _wanted(self, need: Need) -> Place | None:
        """Return what is to be loaded for a lane; refuse its requests if nothing ever can be.

        The most accurate variant by which its first request is in time, or else the one by which it
        is answered first; in place of its own, a fused variant that served its model lately.
        """
        most, now = self._state.residency.most, self._state.now
        left_s = need.head.request.deadline_s - now
        found: Place | None = None
        soonest_s = smallest = math.inf
        for options in self._demand.ways(need):
            best, least_s = None, math.inf
            for _, _, place in options:
                if place is not None and place.size > most(place):
                    smallest = min(smallest, place.size)
            for seconds, _, place in options:
                if place is None or place.is_loaded or place.size > most(place):
                    continue
                smallest = -math.inf
                if place.retry_s > now:
                    self._transfers.look_again(place.retry_s)
                elif place.load_s + seconds < least_s:
                    best, least_s = place, place.load_s + seconds
            if least_s < soonest_s:
                found, soonest_s = best, least_s
            if (1 + MARGIN) * least_s <= left_s and best is not None:
                found = best
                break
        fused = self._fused(need, is_needed=0 < smallest < math.inf)
        if fused is None and 0 < smallest < math.inf:
            self._refuse(need, f"loading it needs {format_bytes(smallest)}, more than memory has")
        return fused or found

    def _fused(self, need: Need, *, is_needed: bool) -> Place | None:
        """Return what is to be loaded of a fused variant that may serve a lane; None if nothing.

        Args:
            need: What the lane needs.
            is_needed: Whether nothing else can be loaded.
        """
        residency = self._state.residency
        found: list[Place] = []
        for fused in need.lane.fused:
            used = residency.popularity.of([fused.name])
            if not is_needed and used <= residency.popularity.of(fused.members):
                continue
            for _, processor, _ in need.options:
                place = residency.place(fused.name, Span(), processor)
                if place is None or place.size > residency.most(place):
                    continue
                if self._transfers.may_load(place):
                    found.append(place)
        return min(found, key=_load_s, default=None)

    # after the policy decided

    def prefetch(self) -> float:
        """Load what will be needed, if nothing else is loaded; return when to look again."""
        return self._prefetch.begin(self._blocked)

    # failures

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


def _load_s(place: Place) -> float:
    return place.load_s


def _cannot_help(other: Place | None, failed: Place) -> bool:
    """Tell whether a lane cannot go on from a place, now that another one failed."""
    if other is None or other.is_loaded or other.is_loading:
        return False
    return other is failed or other.failures > 1
