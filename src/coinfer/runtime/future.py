"""InferenceFuture: the answer to come, and what the engine keeps of the request until then."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from itertools import repeat
from operator import call, length_hint
from typing import Any

from coinfer.backends.base import Tensor, Tensors
from coinfer.backends.values import Values, to_host
from coinfer.core.request import Request
from coinfer.errors import ClosedError, CoinferError
from coinfer.fork_locks import free_after_fork
from coinfer.runtime.span_io import SpanIO

__all__ = ["InferenceFuture"]

_log = logging.getLogger(__name__)

_NOTING = free_after_fork(threading.Lock())
"""Held while those are told who wait for a future that was cancelled."""

_NOTHING: Values = {}

_allocate_lock = threading.Lock

_OPEN = ("PENDING", "RUNNING")
"""The states of a future, as its base class calls them, before its answer."""


class _Condition(type(threading.RLock())):  # type: ignore[misc]  # the class has no public name
    """The condition of a future, whose lock is entered and left in one step of the interpreter.

    `threading.Condition` takes its lock in a method: a signal handler that raises there, in the
    main thread, leaves the lock taken, and the thread that answers would hang. Making one costs a
    quarter, too.
    """

    def __init__(self) -> None:
        self.waiters: list[threading.Lock] = []

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - as of the base class
        """Do not wait: the future did, without the lock."""
        return False

    def notify_all(self) -> None:
        """Wake all that wait."""
        waiters = self.waiters
        while waiters:
            try:
                waiter = waiters.pop()
            except IndexError:
                return  # it went away itself
            waiter.release()


class InferenceFuture(Future[dict[str, Tensor]]):
    """Outputs by name, or an error of `coinfer.errors`.

    Callers use it as any `concurrent.futures.Future`. A request can be cancelled until it starts;
    one of a model that is cut into spans, until its last span starts.

    Attributes:
        request: The request as the policy sees it.
    """

    _state = _OPEN[0]
    _result = None
    _exception = None
    _begun = False
    _started = False
    _is_noted = False
    _is_muted = False
    _outputs: Values = _NOTHING

    def __init__(
        self, request: Request, inputs: Tensors, on_cancel: Callable[[InferenceFuture], None]
    ) -> None:
        self.request = request
        self._inputs: Values = inputs
        self._on_cancel = on_cancel
        # All that the base class sets but for the condition, and for what is the same for all.
        self._condition = _Condition()
        self._waiters: list[Any] = []
        self._done_callbacks: list[Callable[[InferenceFuture], object]] = []

    def cancel(self) -> bool:
        """Cancel a request that has not begun its last span; True if it is cancelled."""
        if self._begun and not self.cancelled():
            return False
        try:
            try:
                # Callbacks run in here, and may cancel other futures: no lock must be held.
                return super().cancel()
            finally:
                self._tell_of_cancel()
        except BaseException:  # a callback or a signal handler raised, perhaps while it was told
            self._tell_of_cancel()
            raise

    def _tell_of_cancel(self) -> None:
        """If it is cancelled, tell the engine and those who wait for it; again is fine."""
        if not self.cancelled():
            return
        if not self._is_noted:
            self._on_cancel(self)
            self._is_noted = True
        with _NOTING:
            if self._state == "CANCELLED":
                self.set_running_or_notify_cancel()
        self._invoke_callbacks()

    def _invoke_callbacks(self) -> None:
        """Call each callback once, whatever those before it raise.

        Raises:
            BaseException: what the last that raised anything but an `Exception` raised.
        """
        if self._is_muted or not self._done_callbacks:
            return
        left = self.__dict__.setdefault("_left", iter(self._done_callbacks))
        # To take one and to call it is one step of the interpreter: none is lost in between.
        calls = map(call, left, repeat(self))
        while length_hint(left):
            try:
                for _ in calls:
                    pass
            except Exception:  # noqa: BLE001 - foreign code
                _log.exception("a callback of %s raised", self._what)
            except BaseException:
                self._invoke_callbacks()
                raise

    @property
    def _what(self) -> str:
        return f"request {self.request.id} of model {self.request.model!r}"

    def result(self, timeout: float | None = None) -> dict[str, Tensor]:
        """Return the outputs by name, or raise the error; see `Engine.submit`."""
        self._wait(timeout)
        if self._state == "FINISHED" and self._exception is None:  # nearly always
            return self._result  # type: ignore[return-value]  # there is one
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error; None if there are outputs."""
        self._wait(timeout)
        return super().exception(0)

    def _wait(self, timeout: float | None) -> None:
        """Wait until it is answered or cancelled. No lock that others need is held meanwhile."""
        if self._state not in _OPEN:
            return
        most_s = -1 if timeout is None else max(0.0, min(timeout, threading.TIMEOUT_MAX))
        waiters = self._condition.waiters  # type: ignore[attr-defined]  # see `__init__`
        waiter = _allocate_lock()
        waiter.acquire()
        try:
            waiters.append(waiter)
            if self._state in _OPEN:  # else it may have been answered without seeing the waiter
                waiter.acquire(timeout=most_s)
        finally:
            if waiter in waiters:
                with suppress(ValueError):  # it was woken at this moment
                    waiters.remove(waiter)

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

    def forsake(self, reason: str) -> None:
        """In the child of a fork: raise ClosedError there. Callbacks are the parent's affair."""
        self._condition = _Condition()  # a thread of the parent may have held the old one
        if not self.done():
            self._done_callbacks.clear()
            self.answer(ClosedError(reason))

    def answer_silently(self, error: CoinferError) -> None:
        """Resolve, and leave the callbacks to `call_back`: one of them might never return."""
        self._is_muted = True
        self.answer(error)
        self._is_muted = False

    def call_back(self) -> None:
        """Call the callbacks that are not called yet."""
        self._invoke_callbacks()

    def answer(self, error: CoinferError | None) -> None:
        """Resolve with the kept outputs or an error, unless it was cancelled or resolved before."""
        self._begun = True
        condition = self._condition
        # As `set_result` of the base class, in half the steps.
        with condition:
            if self._state not in _OPEN:
                # Cancelled as it started, or answered before by a stop that ran out of time.
                self._outputs = self._inputs = _NOTHING
                return
            if error is None:
                self._result = self._outputs
            else:
                self._exception = error
            self._state = "FINISHED"
            if self._waiters:
                self._tell_waiters()
            if condition.waiters:  # type: ignore[attr-defined]  # see `__init__`
                condition.notify_all()
        self._outputs = self._inputs = _NOTHING
        self._invoke_callbacks()

    def _tell_waiters(self) -> None:
        """Tell those that wait for several futures at once, while the condition is held."""
        for waiter in self._waiters:
            if self._exception is None:
                waiter.add_result(self)
            else:
                waiter.add_exception(self)
