"""InferenceFuture: the answer to come, and what the engine keeps of the request until then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError

from coinfer.backends.base import Tensor, Tensors
from coinfer.backends.values import Values, to_host
from coinfer.core.request import Request
from coinfer.errors import CoinferError
from coinfer.runtime.span_io import SpanIO

__all__ = ["InferenceFuture"]


_NOTING = threading.Lock()
"""Held for an assignment only."""

_NOTHING: Values = {}


class InferenceFuture(Future[dict[str, Tensor]]):
    """Outputs by name, or an error of `coinfer.errors`.

    Callers use it as any `concurrent.futures.Future`. A request can be cancelled until it starts;
    one of a model that is cut into spans, until its last span starts.

    Attributes:
        request: The request as the policy sees it.
    """

    # Set by `of` and not by a constructor: one is made per request.
    request: Request
    _inputs: Values
    _on_cancel: Callable[[InferenceFuture], None]
    _begun = False
    _started = False
    _is_noted = False
    _outputs: Values = _NOTHING

    @classmethod
    def of(
        cls, request: Request, inputs: Tensors, on_cancel: Callable[[InferenceFuture], None]
    ) -> InferenceFuture:
        """Make the future of a request."""
        future = cls()
        future.request = request
        future._inputs = inputs
        future._on_cancel = on_cancel
        return future

    def cancel(self) -> bool:
        """Cancel a request that has not begun its last span; True if it is cancelled."""
        if self._begun and not self.cancelled():
            return False
        # Callbacks run in here, and may cancel other futures: no lock must be held.
        if not super().cancel():
            return False
        with _NOTING:
            is_first, self._is_noted = not self._is_noted, True
        if is_first:
            self.set_running_or_notify_cancel()  # tells those who wait for it; only once
            self._on_cancel(self)
        return True

    def running(self) -> bool:
        """Tell whether it started and has no answer yet."""
        return (self._begun or self._started) and not self.done()

    # for the engine

    def take(self, span_io: SpanIO) -> Values:
        """Note that a span of it starts and return what that reads; the last cannot be cancelled.

        The values stay: if the span fails, it starts again from them.
        """
        values = self._inputs
        if span_io.is_whole:  # most are
            self._begun = True
            return values
        self._started = True
        if span_io.is_last:
            self._begun = True
        return {name: values[name] for name in span_io.reads}

    def add(self, values: Values) -> None:
        """Add what one side of a fork computed; what was there stays for the other side."""
        self._inputs = {**self._inputs, **values}

    def advance(self, values: Values, span_io: SpanIO) -> None:
        """Add what a span computed, and forget what nobody reads after it."""
        known = {**self._inputs, **values}
        kept = {name: known[name] for name in span_io.keeps}
        if span_io.is_last:
            self._outputs = to_host(kept)
        else:
            self._inputs = kept

    def keep(self, outputs: Values) -> None:
        """Keep the outputs until the core says that this was the last execution."""
        self._outputs = outputs

    def answer(self, error: CoinferError | None) -> None:
        """Resolve with the kept outputs or an error, unless it was cancelled or resolved before."""
        self._begun = True
        try:
            if error is None:
                self.set_result(self._outputs)  # type: ignore[arg-type]  # arrays, see `advance`
            else:
                self.set_exception(error)
        except InvalidStateError:
            # Cancelled as it started, or answered before by a stop that ran out of time.
            return
        finally:
            self._outputs = self._inputs = _NOTHING
