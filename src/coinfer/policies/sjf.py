"""Shortest job first: a free processor takes what it finishes soonest.

Rule (ETRI study): the cheapest model first. A free processor takes, of all that waits, what it
finishes soonest. Long jobs wait as long as short ones keep coming, hence `patience_s`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from coinfer.core.lane import Lane
from coinfer.core.policy import Policy, Start
from coinfer.core.view import View
from coinfer.errors import ConfigurationError

__all__ = ["ShortestJobFirst"]


@dataclass(slots=True, kw_only=True)
class ShortestJobFirst(Policy):
    """Serve the cheapest first.

    Attributes:
        patience_s: A request that has waited this many seconds is served before shorter ones.
            Infinite is the rule as published.
    """

    patience_s: float = math.inf

    def __post_init__(self) -> None:
        """Refuse an option that makes no sense."""
        if not self.patience_s >= 0:
            raise ConfigurationError("policy 'sjf': patience_s must not be negative")

    def decide(self, view: View) -> Iterator[Start]:
        """Start the pair of a waiting model and a free processor that takes the least time."""
        while found := view.startable():
            late = view.now - self.patience_s
            overdue = [item for item in found if item[0].head.arrival_s <= late]
            _, _, name, request = min(
                (view.unit_seconds(lane, name), lane.head_rank, name, lane.head)
                for lane, able in (_oldest(overdue) if overdue else found)
                for name in able
            )
            yield Start(name, (request,))


def _oldest(found: list[tuple[Lane, list[str]]]) -> list[tuple[Lane, list[str]]]:
    return [min(found, key=lambda item: item[0].head_rank)]
