"""Demand: what is loaded is needed for: by what waits, now, and by what runs, next.

Who waits and has other variants than his own (cheaper ones, fused ones) is told when his own should
be there, loads for those before him included; whoever may is lent what is loaded instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from coinfer.core.needs import Allows, Need, Option, lent_to, needs_of, options_of
from coinfer.core.place import Place
from coinfer.core.state import State
from coinfer.core.transfers import Transfers

__all__ = ["PATIENCE", "Demand"]

PATIENCE = 10.0
"""Times the seconds of his load, by the requests that it is for, that who is not urgent lets others
go first whose loads are shorter. One load is done at a time: behind a long one processors soon have
nothing left to do. The rule is that of Smith (1956) for one machine, with an end to waiting."""


@dataclass(slots=True, eq=False)
class Demand:
    """Who needs what.

    Attributes:
        allows: Where a policy serves a lane at all.
        needs: What waiting requests need, in the order in which it is loaded.
        guards: By place that is loaded and from which something that waits could be served, who
            goes first of those that wait for it.
        soon: What running requests need next.
        is_urgent: Whether an urgent request waits or runs.
    """

    _state: State
    _transfers: Transfers
    allows: Allows
    needs: list[Need] = field(default_factory=list)
    guards: dict[Place, Need] = field(default_factory=dict)
    soon: set[Place] = field(default_factory=set)
    is_urgent: bool = False
    _due: list[Place] = field(default_factory=list)

    def look_at_running(self) -> None:
        """Find out what running requests need next, and whether they are urgent."""
        state = self._state
        self.soon.clear()
        self.is_urgent = False
        for execution in state.running.values():
            self.is_urgent = self.is_urgent or any(r.is_urgent for r in execution.requests)
            at = execution.span.last + 1
            if at < state.units[execution.variant]:
                lane = state.requests[execution.requests[0].id].lane
                for option in options_of(state, lane, at, self.allows):
                    if option.place is not None:
                        self.soon.add(option.place)

    def look_at_waiting(self, *, only_fresh: bool) -> None:
        """Find out what waiting requests need, and which places are there that serve them.

        Args:
            only_fresh: Whether nobody is kept for whom he serves, but for one use of each place
                that is loaded.
        """
        self.needs = sorted(needs_of(self._state, self.allows), key=_order)
        if not only_fresh:
            _let_short_loads_first(self.needs)
        self._lend()
        self.guards.clear()
        for need in self.needs:
            self.is_urgent = self.is_urgent or need.head.request.is_urgent
            place = need.best()
            if place is not None and (place.is_fresh or not only_fresh):
                self.guards.setdefault(place, need)

    def has_other_way(self, place: Place) -> bool:
        """Tell whether all that is run from a place could be run elsewhere as things are."""
        state, span = self._state, place.span
        for variant in place.variants:
            names = state.estimates.row(variant, span, 1, 0).keys() & set(state.in_service)
            others = [state.residency.place(variant, span, name) for name in names]
            if not any(each is None or (each.is_loaded and each is not place) for each in others):
                return False
        return True

    def ways(self, need: Need) -> Iterator[list[Option]]:
        """Yield the ways in which a lane could go on, by variant: the most accurate first."""
        yield need.options
        for cheaper in need.lane.cheaper:
            yield options_of(self._state, cheaper, need.lane.key.position, self.allows)

    def _lend(self) -> None:
        """Let other variants serve where nothing of the own is loaded and that may be."""
        for place in self._due:
            place.due_s = math.inf
        self._due.clear()
        free_s = self._transfers.free_s
        for at, need in enumerate(self.needs):
            if need.is_met():
                continue
            if need.lane.cheaper or need.lane.fused:
                self._foresee(need, free_s)
                need = self.needs[at] = need._replace(lent=lent_to(self._state, need))
            if not need.is_met() and not any(o.place and o.place.is_loading for o in need.options):
                free_s += need.load_s

    def _foresee(self, need: Need, free_s: float) -> None:
        """Note when what a lane needs should be there.

        Args:
            need: What it needs.
            free_s: When the next load could begin for it.
        """
        most = self._state.residency.most
        for _, _, place in need.options:
            if place is None or place.is_loaded:
                continue
            if place.is_loading:
                place.due_s = self._transfers.free_s
            elif place.size <= most(place):
                place.due_s = max(free_s, place.retry_s) + place.load_s
            self._due.append(place)


def _order(need: Need) -> tuple[object, ...]:
    return need.order


def _let_short_loads_first(needs: list[Need]) -> None:
    """Order anew those who are not under way and not urgent; others keep their turn."""
    patient = [
        at
        for at, need in enumerate(needs)
        if not (need.head.started or need.head.request.is_urgent)
    ]
    ordered = sorted([needs[at] for at in patient], key=_patience)
    for at, need in zip(patient, ordered, strict=True):
        needs[at] = need


def _patience(need: Need) -> tuple[int, float]:
    request = need.head.request
    return -request.priority, request.arrival_s + PATIENCE * need.load_s / len(need.lane)
