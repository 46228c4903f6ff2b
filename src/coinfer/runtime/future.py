"""InferenceFuture: the answer to come, a `concurrent.futures.Future` that can be cancelled."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from coinfer.backends.base import Tensor

__all__ = ["InferenceFuture"]


class InferenceFuture(Future[dict[str, Tensor]]):
    """Outputs by name, or an error of `coinfer.errors`.

    Attributes:
        request_id: The engine's number of the request, as in traces.
    """

    def __init__(self, request_id: int, on_cancel: Callable[[int], None]) -> None:
        super().__init__()
        self.request_id = request_id
        self._on_cancel = on_cancel

    def cancel(self) -> bool:
        """Cancel a request that has not started; True if it is cancelled."""
        if self.cancelled():
            return True
        if not super().cancel():
            return False
        self._on_cancel(self.request_id)
        return True
