"""Earliest deadline first (Liu and Layland, 1973), on several processors.

Rule: of all that waits and can start, the request with the earliest deadline goes to the free
processor that takes the fewest unit-seconds among those that still meet the deadline, or to the
fastest if none does. A request without a deadline counts as due `patience_s` after it arrived, so
that it is not starved. A droppable request that no processor can finish in time is dropped at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from coinfer.core.policy import Drop, Policy, Start
from coinfer.core.request import Request
from coinfer.core.view import View
from coinfer.errors import ConfigurationError

__all__ = ["EarliestDeadlineFirst"]


@dataclass(slots=True, kw_only=True)
class EarliestDeadlineFirst(Policy):
    """Serve the earliest deadline first.

    Attributes:
        patience_s: Implied relative deadline of requests that have none, in seconds.
    """

    patience_s: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an option that makes no sense."""
        if not self.patience_s >= 0:
            raise ConfigurationError("policy 'edf': patience_s must not be negative")

    def rank(self, request: Request) -> float:
        """Order by the deadline, given or implied."""
        if request.deadline_s < math.inf:
            return request.deadline_s
        return request.arrival_s + self.patience_s

    def decide(self, view: View) -> Iterator[Start | Drop]:
        """Start or drop the most urgent request that a free processor can run."""
        while found := view.first_startable():
            lane, able = found
            request = lane.head
            if view.is_hopeless(lane, request):
                yield Drop(request, "no processor can meet its deadline any more")
                continue
            left_s = request.deadline_s - view.now
            in_time = [name for name in able if view.expected_s(lane, name) <= left_s]
            if in_time:
                yield Start(view.cheapest(lane, in_time), (request,))
            else:
                yield Start(view.fastest(lane, able), (request,))
