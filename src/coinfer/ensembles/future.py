"""EnsembleFuture: the answer to come of a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

__all__ = ["EnsembleFuture"]


class EnsembleFuture(Future[dict[str, Any]]):
    """Outputs by name, or an error of `coinfer.errors` that names the stage.

    Callers use it as any `concurrent.futures.Future`. It can be cancelled until it is answered:
    what waits is not run any more, and what runs is thrown away.

    Args:
        on_cancel: Tells the pipeline; returns whether it was not over yet.
    """

    def __init__(self, on_cancel: Callable[[], bool]) -> None:
        super().__init__()
        self._on_cancel = on_cancel

    def cancel(self) -> bool:
        """Cancel what is left of the pipeline; False if it is answered already."""
        if not self._on_cancel():
            return self.cancelled()
        super().cancel()  # nobody else may resolve it any more
        return self.set_running_or_notify_cancel() is False
