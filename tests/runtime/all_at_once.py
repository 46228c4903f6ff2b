"""AllAtOnce: a policy for tests that stacks all it can."""

from __future__ import annotations

from typing import Any

from coinfer.core.policy import Policy, Start

__all__ = ["AllAtOnce"]


class AllAtOnce(Policy):
    """Starts everything that waits in a lane as one execution of one unit."""

    def __init__(self) -> None:
        self.largest = 0

    def rank(self, request: Any) -> float:
        return float(request.arrival_s)

    def decide(self, view: Any) -> Any:
        for lane, able in view.startable()[:1]:
            together = tuple(lane.in_order())
            self.largest = max(self.largest, len(together))
            yield Start(able[0], together)
