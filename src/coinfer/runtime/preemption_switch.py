"""Preemption switch: takes express processors of CPU cores out of service, and puts them back."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping

from coinfer.core.commands import Execution
from coinfer.core.events import ProcessorLost, ProcessorRestored
from coinfer.runtime import clock
from coinfer.runtime.unanswered import Answer
from coinfer.runtime.worker_pool import WorkerPool

__all__ = ["PreemptionSwitch"]

_AGAIN_S = 0.02


class PreemptionSwitch:
    """Lets nothing preempt for a reason, or again. The timer's thread looks at what is left to do.

    Args:
        pool: The workers.
        running: What runs, by number.
        handle: Has the core handle an event at once, with the answers to give; for the owner.
        post_later: Has the owner do something.

    Attributes:
        reason: Why nothing preempts; empty: it may.
    """

    def __init__(
        self,
        pool: WorkerPool,
        running: Mapping[int, Execution],
        handle: Callable[[ProcessorLost | ProcessorRestored, deque[Answer]], None],
        post_later: Callable[[Callable[[deque[Answer]], None]], None],
    ) -> None:
        self._pool = pool
        self._running = running
        self._handle = handle
        self._post_later = post_later
        self.reason = ""
        self._left: set[str] = set()
        self._again_s = math.inf

    def set(self, reason: str) -> None:
        """Let nothing preempt for a reason, and raise again what gives way; empty: let it again.

        Returns at once. An express processor that runs something goes once it has ended.
        """
        self.reason, self._left = reason, {*self._pool.lowering}
        self._again_s = clock.now() + _AGAIN_S
        self._post_later(self._perform)

    def due_in_s(self) -> float:
        """Return the seconds until it wants to be called; infinite: all is done."""
        return max(0.0, self._again_s - clock.now())

    def look(self) -> None:
        """Do what is left, if it can be done by now."""
        self._again_s = clock.now() + _AGAIN_S if self._left else math.inf
        if self._left:
            self._post_later(self._perform)

    def _perform(self, answers: deque[Answer]) -> None:
        reason, left = self.reason, self._left  # the timer's thread may set others meanwhile
        for name in sorted(left):
            if not reason:
                if not self._pool.workers[name].retired:  # else it comes back with its next worker
                    self._handle(ProcessorRestored(name), answers)
            elif name in {run.processor for run in self._running.values()}:
                continue
            else:
                self._handle(ProcessorLost(name, reason), answers)
            left.discard(name)
        if reason:
            self._pool.raise_again()
