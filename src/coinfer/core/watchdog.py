"""Watchdog: which executions take so long that they are given up. Abandons none itself."""

from __future__ import annotations

import math
from collections.abc import Iterator

from coinfer.core.commands import Execution
from coinfer.core.state import State
from coinfer.core.timers import Timers
from coinfer.core.turn import Turn

__all__ = ["Watchdog"]


class Watchdog:
    """Looks at what runs when the first of it may have overrun its limit.

    The limit is `hang_factor` times the estimate, but not less than `hang_min_s`; for how long
    express processors held an execution up, or will, comes on top.

    Attributes:
        hang_min_s: No execution is given up before this many seconds.
    """

    __slots__ = ("_hang_factor", "_state", "_timers", "_turn", "hang_min_s")

    def __init__(
        self, state: State, turn: Turn, timers: Timers, hang_factor: float, hang_min_s: float
    ) -> None:
        self._state = state
        self._turn = turn
        self._timers = timers
        self._hang_factor = hang_factor
        self.hang_min_s = hang_min_s

    def watch(self, execution: Execution) -> None:
        """Look at an execution when its limit is over, at the latest."""
        self._timers.watch(self._limit_s(execution))

    def overdue(self) -> Iterator[Execution]:
        """Yield what overran its limit; each is to be given up at once."""
        self._timers.watchdog_s = math.inf
        for execution in list(self._state.running.values()):
            if self._limit_s(execution) <= self._turn.now:
                yield execution
        for execution in self._state.running.values():
            self.watch(execution)

    def _limit_s(self, execution: Execution) -> float:
        patience_s = self._hang_factor * execution.expected_s
        delay_s = self._state.delay_s(execution, self._turn.now)
        return execution.started_s + max(self.hang_min_s, patience_s) + delay_s
