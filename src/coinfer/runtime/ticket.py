"""Ticket: what the engine keeps of a request and the core need not know: future and arrays."""

from __future__ import annotations

from concurrent.futures import InvalidStateError
from contextlib import suppress

from coinfer.backends.base import Tensor, Tensors
from coinfer.core.request import Request
from coinfer.errors import CoinferError
from coinfer.runtime.future import InferenceFuture

__all__ = ["Ticket"]


class Ticket:
    """One unanswered request on the engine's side."""

    __slots__ = ("_begun", "future", "inputs", "outputs", "request")

    def __init__(self, request: Request, inputs: Tensors, future: InferenceFuture) -> None:
        self.request = request
        self.inputs = inputs
        self.future = future
        self.outputs: dict[str, Tensor] = {}
        self._begun = False

    def begin(self) -> None:
        """Note that it runs: from now on it cannot be cancelled."""
        if not self._begun:
            self._begun = True
            self.future.set_running_or_notify_cancel()

    def answer(self, error: CoinferError | None) -> None:
        """Resolve the future with the outputs or an error, unless its caller cancelled it."""
        self.begin()
        # Only a stop that ran out of time answers a request that a worker may answer as well.
        with suppress(InvalidStateError):
            if self.future.cancelled():
                return
            if error is None:
                self.future.set_result(self.outputs)
            else:
                self.future.set_exception(error)
