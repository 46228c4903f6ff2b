"""Least slack first: what has the least time to spare goes first.

Rule (Band, MobiSys 2022, "least slack time first"; Mok, 1983): a request's slack is its deadline,
less now, less the seconds to the end of its schedule, waits for busy processors counted. The
requests in the window are taken in the order of their slack. If the processor of the schedule's
first step is free, the step starts; else its time there counts as reserved and the next request is
looked at. A droppable request whose schedule misses its deadline, counting only what runs, is
dropped at once.

As published, a request without a deadline has slack without end, and starves. Here it counts as due
`patience_s` after it arrived, so it grows more urgent as it waits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from coinfer.core.lane import Lane
from coinfer.core.lookahead import Lookahead
from coinfer.core.request import OnLate, Request
from coinfer.errors import ConfigurationError
from coinfer.policies.planned import PlannedMapping

__all__ = ["LeastSlack"]


@dataclass(slots=True, kw_only=True)
class LeastSlack(PlannedMapping):
    """Serve first what has the least time to spare.

    Attributes:
        patience_s: Implied relative deadline of requests that have none, in seconds. Infinite is
            the rule as published.
        window: How many waiting requests, the earliest deadlines first, one decision looks at.
    """

    patience_s: float = 1.0

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        PlannedMapping.__post_init__(self)
        if not self.patience_s >= 0:
            raise ConfigurationError("policy 'least_slack': patience_s must not be negative")

    def rank(self, request: Request) -> float:
        """Order by the deadline, given or implied; requests of one lane need the same time."""
        if request.deadline_s < math.inf:
            return request.deadline_s
        return request.arrival_s + self.patience_s

    def order(self, request: Request, finish_s: float) -> float:
        """Order by the slack; now is the same for all."""
        return self.rank(request) - finish_s

    def is_late(self, request: Request, lane: Lane, lookahead: Lookahead) -> bool:
        """Tell whether a droppable request cannot be finished in time any more."""
        return (
            request.on_late is OnLate.DROP
            and lookahead.latest_s(lane) > request.deadline_s
            and lookahead.schedule(lane).finish_s > request.deadline_s
        )
