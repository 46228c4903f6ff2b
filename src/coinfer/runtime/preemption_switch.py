"""Preemption switch: takes express processors out of service, and puts them back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from coinfer.core.commands import Execution
from coinfer.core.events import ProcessorLost, ProcessorRestored
from coinfer.runtime import clock
from coinfer.runtime.worker_pool import WorkerPool

__all__ = ["PreemptionSwitch"]

_AGAIN_S = 0.02


class PreemptionSwitch:
    """Lets nothing preempt for a reason, or again. The timer's thread looks at what is left to do.

    Args:
        pool: The workers.
        running: What runs, by number.
        post: Posts an event; the owner of the core does it.
        post_later: Has the owner do something.
    """

    def __init__(
        self,
        pool: WorkerPool,
        running: Mapping[int, Execution],
        post: Callable[[ProcessorLost | ProcessorRestored], None],
        post_later: Callable[[Callable[[object], None]], None],
    ) -> None:
        self._pool = pool
        self._running = running
        self._post = post
        self._post_later = post_later
        self._reason = ""
        self._left: set[str] = set()
        self._again_s = math.inf

    def set(self, reason: str) -> None:
        """Let nothing preempt for a reason, and raise again what gives way; empty: let it again.

        Returns at once. An express processor that runs something goes once it has ended.
        """
        self._reason, self._left = reason, {*self._pool.twins}
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

    def _perform(self, _answers: object) -> None:
        busy = {run.processor for run in self._running.values()}
        for name in sorted(self._left):
            if not self._reason:
                self._post(ProcessorRestored(name))
            elif name not in busy:
                self._post(ProcessorLost(name, self._reason))
            else:
                continue
            self._left.discard(name)
        if self._reason:
            self._pool.raise_again()
