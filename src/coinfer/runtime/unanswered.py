"""Unanswered: the futures of the requests that have no answer yet, and who waits for the last."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

from coinfer.errors import ClosedError, CoinferError
from coinfer.runtime import clock
from coinfer.runtime.future import InferenceFuture
from coinfer.runtime.latch import Latch
from coinfer.runtime.watchers import Watchers

__all__ = ["Answer", "Unanswered"]

_log = logging.getLogger(__name__)

Answer = tuple[int, CoinferError | None]
"""A request's number and how it ends: well, or with an error."""


class Unanswered:
    """Submitted requests until each is answered; it answers them.

    Attributes:
        futures: Their futures, by id.
    """

    __slots__ = ("_drains", "_watchers", "futures")

    def __init__(self, watchers: Watchers) -> None:
        self.futures: dict[int, InferenceFuture] = {}
        self._watchers = watchers
        self._drains: list[Latch] = []

    def settle(self, answer: Answer) -> None:
        """Resolve a future; its callbacks run here, so the core must not be owned."""
        request_id, error = answer
        future = self.futures.get(request_id)
        if future is None:
            return
        if self._watchers.timekeeper is not None:
            self._watchers.tell("answered", request_id, clock.now())
        try:
            future.answer(error)
        except BaseException:  # noqa: BLE001 - e.g. SystemExit: the thread is not the callback's
            model = future.request.model
            _log.exception("a callback of request %d of model %r raised", request_id, model)
        finally:
            self.futures.pop(request_id, None)
            if self._drains and not self.futures:
                for drain in self._drains:
                    drain.set()

    def note_drain(self, drained: Latch) -> None:
        """Set a latch once nothing is left; the owner of the core asks for it."""
        self._drains = [drain for drain in self._drains if not drain.is_set]
        self._drains.append(drained)
        if not self.futures:  # whoever answers the last looks at the drains after that
            drained.set()

    def close_silently(self, reason: str) -> None:
        """Answer what is left, whatever its callbacks do: these have a thread of their own."""
        left = list(self.futures.values())
        for future in left:
            future.answer_silently(ClosedError(reason))
            self.futures.pop(future.request.id, None)

        def call_back() -> None:
            for future in left:
                with suppress(BaseException):  # as of `settle`; errors are logged
                    future.call_back()

        with suppress(RuntimeError):  # the interpreter ends, and takes no new thread
            threading.Thread(target=call_back, name="coinfer-answers", daemon=True).start()

    def forsake(self, reason: str) -> None:
        """In the child of a fork: all of them raise there, and nobody is told."""
        for future in self.futures.values():
            future.forsake(reason)
        self.futures.clear()
