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

from coinfer.core.policy import Drop, Start
from coinfer.core.request import Request
from coinfer.core.view import View

__all__ = ["EarliestDeadlineFirst"]


@dataclass(slots=True, kw_only=True)
class EarliestDeadlineFirst:
    """Serve the earliest deadline first.

    Attributes:
        patience_s: Implied relative deadline of requests that have none, in seconds.
    """

    patience_s: float = 1.0

    def rank(self, request: Request) -> float:
        """Order by the deadline, given or implied."""
        if request.deadline_s < math.inf:
            return request.deadline_s
        return request.arrival_s + self.patience_s

    def decide(self, view: View) -> Iterator[Start | Drop]:
        """Start or drop the most urgent request that a free processor can run."""
        while found := view.startable():
            lane, able = min(found, key=lambda item: item[0].head_rank)
            request = lane.head
            if view.is_hopeless(lane.key, request):
                yield Drop(request, "no processor can meet its deadline any more")
                continue
            seconds = {name: view.expected_s(lane.key, name) for name in able}
            in_time = [n for n in able if view.now + seconds[n] <= request.deadline_s]
            if in_time:
                name = min(in_time, key=lambda n: view.unit_seconds(lane.key, n))
            else:
                name = min(able, key=seconds.__getitem__)
            yield Start(name, (request,))
