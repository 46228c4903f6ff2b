"""Demand: what is loaded is needed for: by what waits, now, and by what runs, next."""

from __future__ import annotations

from dataclasses import dataclass, field

from coinfer.core.needs import Allows, Need, needs_of, options_of
from coinfer.core.place import Place
from coinfer.core.state import State

__all__ = ["Demand"]


@dataclass(slots=True, eq=False)
class Demand:
    """Who needs what.

    Attributes:
        allows: Where a policy serves a lane at all.
        needs: What waiting requests need, those that go first at first.
        guards: By place that is loaded and from which something that waits could be served, who
            goes first of those that wait for it.
        soon: What running requests need next.
        is_urgent: Whether an urgent request waits or runs.
    """

    _state: State
    allows: Allows
    needs: list[Need] = field(default_factory=list)
    guards: dict[Place, Need] = field(default_factory=dict)
    soon: set[Place] = field(default_factory=set)
    is_urgent: bool = False

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
                that was loaded for somebody.
        """
        self.needs = sorted(needs_of(self._state, self.allows), key=_order)
        self.guards.clear()
        for need in self.needs:
            self.is_urgent = self.is_urgent or need.head.request.is_urgent
            place = need.best()
            if place is not None and (place.is_fresh or not only_fresh):
                self.guards.setdefault(place, need)


def _order(need: Need) -> tuple[object, ...]:
    return need.order
