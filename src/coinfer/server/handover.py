"""Handover: takes answers from the engine's threads to the event loop, many at a time.

Waking a loop from another thread costs a system call. While one wake is on its way, further answers
only join it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from coinfer.server.inference import Inference

__all__ = ["Handover"]


class Handover:
    """Lets coroutines of one event loop wait for inferences.

    Args:
        loop: The loop; only its thread calls `answered`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done: deque[asyncio.Future[None]] = deque()
        self._is_woken = False

    def answered(self, inference: Inference) -> asyncio.Future[None]:
        """Return what resolves once an inference is answered, however that went."""
        waiting = self._loop.create_future()
        future = inference.future

        def done(_: Future[dict[str, Any]]) -> None:
            self._done.append(waiting)
            if not self._is_woken:
                self._is_woken = True
                with suppress(RuntimeError):  # the loop is closed: nobody waits
                    self._loop.call_soon_threadsafe(self._deliver)

        if future.done():
            waiting.set_result(None)
        else:
            inference.on_done(done)
        return waiting

    def _deliver(self) -> None:
        # First the flag: an answer that comes from here on wakes the loop again.
        self._is_woken = False
        waiting = self._done
        while waiting:
            future = waiting.popleft()
            if not future.done():  # else whoever waited was cancelled
                future.set_result(None)
