"""Watchdog: which executions take so long that they are given up. Abandons none itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from coinfer.core.commands import Execution
from coinfer.core.state import State
from coinfer.core.timers import Timers

__all__ = ["Watchdog"]


@dataclass(slots=True, eq=False)
class Watchdog:
    """Looks at what runs when the first of it may have overrun its limit.

    The limit is `hang_factor` times the estimate, but not less than `hang_min_s`; for how long
    express processors held an execution up, or will, comes on top.

    Attributes:
        hang_factor: An execution that takes this many times its estimate is given up ...
        hang_min_s: ... but not before this many seconds.
    """

    _state: State
    _timers: Timers
    hang_factor: float
    hang_min_s: float

    def watch(self, execution: Execution) -> None:
        """Look at an execution when its limit is over, at the latest."""
        self._timers.watch(self._limit_s(execution))

    def overdue(self) -> Iterator[Execution]:
        """Yield what overran its limit; each is to be given up at once."""
        self._timers.watchdog_s = math.inf
        for execution in list(self._state.running.values()):
            if self._limit_s(execution) <= self._state.now:
                yield execution
        for execution in self._state.running.values():
            self.watch(execution)

    def _limit_s(self, execution: Execution) -> float:
        patience_s = self.hang_factor * execution.expected_s
        delay_s = self._state.delay_s(execution)
        return execution.started_s + max(self.hang_min_s, patience_s) + delay_s
