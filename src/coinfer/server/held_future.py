"""HeldFuture: the answer to a request that the engine does not have yet."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from coinfer.runtime.future import InferenceFuture

__all__ = ["HeldFuture"]


class HeldFuture(Future[dict[str, Any]]):
    """Answered when the engine's own future is, which there is once the engine has the request.

    Args:
        withdraw: Called if nobody wants the answer any more; False: it is not held any longer.
    """

    def __init__(self, withdraw: Callable[[], bool]) -> None:
        super().__init__()
        self._withdraw = withdraw
        self._inner: Future[dict[str, Any]] | None = None
        self._is_unwanted = False
        self._note: Callable[[int], None] | None = None

    def cancel(self) -> bool:
        """Cancel the request unless it has begun; True if it is cancelled."""
        if self._inner is None and self._withdraw():
            return super().cancel()
        # Taken by another thread: that one sees the wish, or this one sees the engine's future.
        self._is_unwanted = True
        inner = self._inner
        return self.cancelled() if inner is None else inner.cancel()

    def note_number(self, note: Callable[[int], None]) -> None:
        """Have the engine's number of it noted, once there is one."""
        self._note = note
        if self._inner is not None:
            self._tell(self._inner)

    def follow(self, inner: Future[dict[str, Any]]) -> None:
        """Be answered as the engine's future is."""
        self._inner = inner
        self._tell(inner)
        inner.add_done_callback(self._answered)
        if self._is_unwanted:
            inner.cancel()

    def _tell(self, inner: Future[dict[str, Any]]) -> None:
        if self._note is not None and isinstance(inner, InferenceFuture):
            self._note(inner.request.id)

    def _answered(self, inner: Future[dict[str, Any]]) -> None:
        if inner.cancelled():
            super().cancel()
            return
        error = inner.exception()
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(inner.result())
