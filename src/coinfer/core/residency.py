"""Residency: what is loaded where, and what it takes until something else is. Decides nothing.

There are pools of two kinds. A processor that holds one model at a time is a pool with one slot: it
changes its model itself, before it runs another one, and an execution there takes as much longer. A
memory with a budget is a pool of bytes: what is loaded into it and evicted from it are places
(`coinfer.core.place`), a loader of its own does it, and what is not loaded cannot start.

Known to the state for what was started; a copy follows what a policy only has in mind. What is in
slots changes in it, what is in memories does not: nobody imagines evictions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import count

from coinfer.core.place import Loadable, Place
from coinfer.core.pool import Pool
from coinfer.core.popularity import Popularity
from coinfer.machine.span import Span

__all__ = ["Residency"]


class Residency:
    """What processors and memories hold.

    The model that runs first on a processor costs nothing: it may be there from the start.

    Attributes:
        costs: By processor that holds one model, and by model, the seconds until the model is
            there; empty if no change of a model takes time anywhere.
        pools: Memories by name.
        places: All that is loaded or can be, by number.
        popularity: How often what of it is asked for.
        retired: Variants whose places are to be given up, since nothing will run from them.
        is_tight: Whether something that can be loaded is not, or must go, so that whoever starts
            must ask.

    >>> residency = Residency()
    >>> residency.add("a", {"npu": 0.4})
    >>> residency.add("b", {"npu": 0.5})
    >>> residency.hold("npu", "a")
    >>> [residency.cost_s(*each) for each in (("npu", "a"), ("npu", "b"), ("cpu", "b"))]
    [0.0, 0.5, 0.0]
    """

    __slots__ = (
        "_by_content",
        "_numbers",
        "_of",
        "_slots",
        "costs",
        "is_tight",
        "places",
        "pools",
        "popularity",
        "retired",
    )

    def __init__(self) -> None:
        self.costs: dict[str, dict[str, float]] = {}
        self.pools: dict[str, Pool] = {}
        self.places: dict[int, Place] = {}
        self.popularity = Popularity()
        self.retired: dict[str, None] = {}
        self.is_tight = False
        self._slots: dict[str, Pool] = {}
        self._of: dict[tuple[str, Span, str], Place] = {}
        self._by_content: dict[tuple[str, Span, str], Place] = {}
        self._numbers = count()

    def add(
        self, model: str, seconds: Mapping[str, float], loadables: Sequence[Loadable] = ()
    ) -> None:
        """Take in what a model costs by processor, and its places; what was known is forgotten."""
        self._forget_slots(model)
        for processor, swap_s in seconds.items():
            if swap_s > 0:
                self.costs.setdefault(processor, {})[model] = swap_s
                self._slots.setdefault(processor, Pool(1))
        self.place_variant(model, loadables)

    def place_variant(self, model: str, loadables: Sequence[Loadable]) -> None:
        """Take in the places of a variant; what was known of them is forgotten."""
        known = {place.id for place in self.places.values() if model in place.variants}
        self.retired.pop(model, None)
        kept = {self._add_place(model, loadable).id for loadable in loadables}
        self._leave(model, known - kept)
        self.look()

    def forget(self, model: str) -> None:
        """Remove every trace of a model."""
        self._forget_slots(model)
        self.retired.pop(model, None)
        if self.places:
            self._leave(model, {p.id for p in self.places.values() if model in p.variants})
            self.look()

    # slots

    def hold(self, processor: str, model: str) -> None:
        """Note that a processor runs a model."""
        slots = self._slots.get(processor)
        if slots is not None:
            while model not in slots.held and not slots.fits(1):
                slots.drop(next(iter(slots.held)))
            slots.use(model, 1)

    def cost_s(self, processor: str, model: str) -> float:
        """Return the seconds until a model is there, if a processor ran it next."""
        slots = self._slots.get(processor)
        if slots is None or model in slots.held or slots.fits(1):
            return 0.0
        return self.costs[processor].get(model, 0.0)

    def costs_of(self, model: str) -> dict[str, float]:
        """Return the seconds until a model is there by processor, where that takes any."""
        return {name: swap_s for name in self.costs if (swap_s := self.cost_s(name, model))}

    def added_to(self, seconds: Mapping[str, float], model: str) -> Mapping[str, float]:
        """Return seconds by processor with what is needed until the model is there."""
        return {name: each + self.cost_s(name, model) for name, each in seconds.items()}

    def copy(self) -> Residency:
        """Return a copy whose slots hold the same now."""
        other = Residency()
        other.costs = self.costs
        other._slots = {name: slots.copy() for name, slots in self._slots.items()}
        return other

    # memories

    def place(self, variant: str, span: Span, processor: str) -> Place | None:
        """Return what must be loaded for a processor to run a span; None: nothing ever."""
        return self._of.get((variant, span, processor))

    def has_places(self, variant: str) -> bool:
        """Tell whether something of a variant can be evicted."""
        return any(variant in place.variants for place in self.places.values())

    def is_loaded(self, variant: str, span: Span, processor: str) -> bool:
        """Tell whether a processor could run a span now."""
        place = self._of.get((variant, span, processor))
        return place is None or place.is_loaded

    def may_start(self, variant: str, span: Span, processor: str) -> bool:
        """Tell whether a processor may begin to run a span now: it is there, and will stay."""
        place = self._of.get((variant, span, processor))
        return place is None or (place.is_loaded and not place.is_draining)

    def wait_s(self, variant: str, span: Span, processor: str, now: float) -> float:
        """Return the seconds until a processor could run a span; infinite if nobody knows."""
        place = self._of.get((variant, span, processor))
        return 0.0 if place is None or place.is_loaded else max(0.0, place.due_s - now)

    def retire(self, variant: str) -> None:
        """Note that nothing will run from the places of a variant any more."""
        mine = [place for place in self.places.values() if place.variants == [variant]]
        for place in mine:
            place.is_retired = True
        if mine:
            self.retired[variant] = None
            self.is_tight = True

    def begin(self, variant: str, span: Span, processor: str) -> None:
        """Note that an execution uses a place."""
        place = self._of.get((variant, span, processor))
        if place is not None:
            place.running += 1
            place.is_fresh = False
            self.pool(place).use(place.id, place.size)

    def end(self, variant: str, span: Span, processor: str) -> None:
        """Note that an execution uses a place no longer."""
        place = self._of.get((variant, span, processor))
        if place is not None:
            place.running -= 1

    def give(self, budgets: Mapping[str, float]) -> None:
        """Take in how many bytes memories have for what is loaded."""
        for name, budget in budgets.items():
            self.pools.setdefault(name, Pool(budget)).capacity = budget

    def pool(self, place: Place) -> Pool:
        """Return the memory of a place; without a budget it is as large as need be."""
        pool = self.pools.get(place.pool)
        if pool is None:
            pool = self.pools[place.pool] = Pool(math.inf)
        return pool

    def resize(self, number: int, size: float) -> bool:
        """Take in what a place takes, as it was measured; tell whether something must go now."""
        place, was_tight = self.places.get(number), self.is_tight
        if place is None:
            return False
        place.size = size
        pool = self.pool(place)
        if number in pool.held:
            pool.taken += size - pool.held[number]
            pool.held[number] = size
        self.look()
        return self.is_tight and not was_tight

    def most(self, place: Place) -> float:
        """Return the largest size that could ever have room where a place is.

        Pins count as long as all of them have room.
        """
        capacity = self.pool(place).capacity
        pinned = self.pinned(place.pool)
        return capacity if place.is_pinned or pinned > capacity else capacity - pinned

    def is_kept(self, place: Place) -> bool:
        """Tell whether a place is never evicted: pinned, in a memory that has room for all pins."""
        return place.is_pinned and self.pinned(place.pool) <= self.pool(place).capacity

    def pinned(self, pool: str) -> float:
        """Return what all pins take of a memory, once they are loaded."""
        return sum([p.size for p in self.places.values() if p.is_pinned and p.pool == pool])

    def loaded(self) -> list[Place]:
        """Return what is loaded."""
        return [place for place in self.places.values() if place.is_loaded]

    def look(self) -> None:
        """Find out anew whether everything is loaded, and may stay."""
        self.is_tight = (
            bool(self.retired)
            or any(not place.is_loaded for place in self.places.values())
            or any(pool.taken > pool.capacity for pool in self.pools.values())
        )

    def _add_place(self, model: str, loadable: Loadable) -> Place:
        key = (loadable.content or f"\0{model}", loadable.span, loadable.processors[0])
        place = self._by_content.get(key)
        if place is None:
            place = Place(next(self._numbers), loadable)
            self.places[place.id] = self._by_content[key] = place
            if place.is_loaded:
                self.pool(place).use(place.id, place.size)
        if model not in place.variants:
            place.variants.append(model)
        place.is_retired = False
        for processor in place.processors:
            self._of[model, place.span, processor] = place
        return place

    def _leave(self, model: str, numbers: Iterable[int]) -> None:
        """Forget that a model is run from places, and those that nothing is run from any more."""
        for number in numbers:
            place = self.places[number]
            place.variants.remove(model)
            for processor in place.processors:
                if self._of.get((model, place.span, processor)) is place:
                    del self._of[model, place.span, processor]
            if not place.variants:
                del self.places[number]
                self._by_content = {k: p for k, p in self._by_content.items() if p is not place}
                if not place.is_loading:  # else its room is taken until the load has ended
                    self.pool(place).drop(number)

    def _forget_slots(self, model: str) -> None:
        if not self.costs:
            return
        for row in self.costs.values():
            row.pop(model, None)
        self.costs = {processor: row for processor, row in self.costs.items() if row}
        self._slots = {n: slots for n, slots in self._slots.items() if n in self.costs}
        for slots in self._slots.values():
            slots.drop(model)
