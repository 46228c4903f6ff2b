"""FrontEnds: the event loop of all transports, on a thread of its own beside the engine's."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from coinfer.runtime.attention import Attend, Soon
from coinfer.server.handover import Handover
from coinfer.threads.time_slice import shorten_time_slice

__all__ = ["FrontEnd", "FrontEnds", "change_attention"]

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class FrontEnd(Protocol):
    """A transport. All of its methods are called in the loop of the front ends."""

    async def start(self, handover: Handover) -> None:
        """Listen from now on.

        Raises:
            CoinferError: it cannot.
        """
        ...

    async def stop(self, grace_s: float) -> None:
        """Take no more connections, end what is asked within so many seconds, and close."""
        ...

    def attend(self, attend: Attend | None) -> None:
        """Let a thread of its own perform brief runs; None: no more. Any thread calls it."""


class FrontEnds:
    """Several transports in one event loop.

    The loop has a thread of its own: the main thread is for signals, and never owns the engine's
    core, so that a request from there would cost one more wake.

    Args:
        front_ends: The transports.
    """

    def __init__(self, front_ends: Sequence[FrontEnd]) -> None:
        self._front_ends = front_ends
        self._loop = _new_loop()
        self._handover = Handover(self._loop)
        self._attend: Attend | None = None
        self._thread = threading.Thread(target=self._run, name="coinfer-server", daemon=True)
        self._started: list[FrontEnd] = []

    def start(self) -> None:
        """Listen; returns when all do.

        Raises:
            CoinferError: one cannot; then none does.
        """
        self._thread.start()
        try:
            self.call(self._start).result()
        except BaseException:
            self.stop(0.0)
            raise

    def stop(self, grace_s: float) -> None:
        """End what is asked within so many seconds, and close all. Again is fine."""
        if self._loop.is_closed():
            return
        self.attend(None)
        try:
            self.call(self._stop, grace_s).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def attend(self, attend: Attend | None) -> None:
        """Let the threads that take requests perform brief runs; None: no more."""
        change_attention(self._thread, self._attend, attend, self._handover.plan)
        self._attend = attend
        for front_end in self._front_ends:
            front_end.attend(attend)

    def call(self, make: Callable[..., Coroutine[Any, Any, _T]], *of: Any) -> Future[_T]:
        """Run a coroutine in the loop."""
        return asyncio.run_coroutine_threadsafe(make(*of), self._loop)

    async def _start(self) -> None:
        for front_end in self._front_ends:
            await front_end.start(self._handover)
            self._started.append(front_end)

    async def _stop(self, grace_s: float) -> None:
        stops = [front_end.stop(grace_s) for front_end in reversed(self._started)]
        self._started.clear()
        for result in await asyncio.gather(*stops, return_exceptions=True):
            if isinstance(result, Exception):
                _log.warning("a front end did not stop well: %s", result)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        shorten_time_slice()
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()


def change_attention(
    thread: threading.Thread, before: Attend | None, attend: Attend | None, soon: Soon
) -> None:
    """Let a thread perform brief runs of another engine than before; None: of none."""
    if thread.ident is None:
        return
    if before is not None:
        before(thread.ident, None)
    if attend is not None:
        attend(thread.ident, soon)


def _new_loop() -> asyncio.AbstractEventLoop:
    """Make the fastest loop that is installed."""
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
