"""Handover: takes answers from the engine's threads to the event loop, many at a time.

Waking a loop from another thread costs a system call. While one wake is on its way, further answers
only join it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from coinfer.server.inference import Inference

__all__ = ["Handover"]

_log = logging.getLogger(__name__)


class Handover:
    """Lets one event loop wait for inferences.

    Args:
        loop: The loop; only its thread calls `answered`, `call` and `plan`.

    Attributes:
        is_due: Whether something is to be performed in the loop's next iteration.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done: deque[Callable[[], None]] = deque()
        self._is_woken = False
        self.is_due = False

    def answered(self, inference: Inference) -> asyncio.Future[None]:
        """Return what resolves once an inference is answered, however that went."""
        waiting = self._loop.create_future()

        def resolve() -> None:
            if not waiting.done():  # else whoever waited was cancelled
                waiting.set_result(None)

        if inference.future.done():
            resolve()
        else:
            self.call(inference, resolve)
        return waiting

    def call(self, inference: Inference, act: Callable[[], None]) -> None:
        """Call something in the loop once an inference is answered; never from in here."""

        def done(_: Future[dict[str, Any]]) -> None:
            self.soon(act)

        inference.on_done(done)

    def soon(self, act: Callable[[], None]) -> None:
        """Call something in the loop, from any thread; never from in here."""
        self._done.append(act)
        if not self._is_woken:
            self._is_woken = True
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._deliver)

    def plan(self, act: Callable[[], None]) -> None:
        """Do something in the loop, soon, that may answer inferences; deliver those at once."""
        self.is_due = True
        self._loop.call_soon(self._perform, act)

    def _perform(self, act: Callable[[], None]) -> None:
        self.is_due = False
        self._is_woken = True  # by what follows
        try:
            act()
        finally:
            self._deliver()

    def _deliver(self) -> None:
        # First the flag: an answer that comes from here on wakes the loop again.
        self._is_woken = False
        acts = self._done
        for _ in range(len(acts)):  # those that come meanwhile have a wake of their own
            try:
                acts.popleft()()
            except Exception:  # noqa: BLE001 - what fails for one must not keep the others
                _log.exception("an answer could not be handed over")
