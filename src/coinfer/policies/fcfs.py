"""First come, first served: the oldest request goes to any free processor.

Rule (ETRI study, reference table): the head of the queue goes to any free processor able to run it.
Among several free ones: the one that takes the fewest unit-seconds, so that a processor made of
many cores is not used where single cores do the same work for less.
"""

from __future__ import annotations

from dataclasses import dataclass

from coinfer.core.lane import Lane
from coinfer.core.policy import Policy
from coinfer.core.request import Request
from coinfer.core.view import View

__all__ = ["FirstComeFirstServed"]


@dataclass(slots=True, kw_only=True)
class FirstComeFirstServed(Policy):
    """Serve in the order of arrival."""

    def place(self, view: View, lane: Lane, _request: Request) -> str | None:
        """Give a lone request to the cheapest free processor."""
        return view.cheapest_idle(lane) or None

    def pick(self, view: View) -> tuple[Lane, str] | None:
        """Give the oldest request that a free processor can run to the cheapest such processor."""
        if view.alike:
            lane, _ = view.first()
            name = view.cheapest_idle(lane)
            if name:
                return lane, name
        found = view.first_startable()
        if found is None:
            return None
        lane, able = found
        return lane, view.cheapest(lane, able)
