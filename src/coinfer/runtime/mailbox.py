"""Mailbox: lets many threads post events, one thread at a time own the core, and none wait.

A thread that posts drains the box itself unless another thread is at it, which then takes the event
along. Handing every event to an owner thread instead would cost two thread switches more per
request, about 20 microseconds each.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Call", "Mailbox"]

T = TypeVar("T")
Call = Callable[[], object]


class _Calls(threading.local):
    pending: deque[Call] | None = None


class Mailbox(Generic[T]):
    """Serialises `handle(item)` over all posting threads, in the order of posting.

    `handle` may post again, and appends to its second argument what is to be called when ownership
    has been given up: the owner itself never runs foreign code.
    """

    __slots__ = ("_calls", "_handle", "_items", "_owned")

    def __init__(self, handle: Callable[[T, deque[Call]], None]) -> None:
        self._handle = handle
        self._items: deque[T] = deque()
        self._owned = threading.Lock()
        self._calls = _Calls()

    def post(self, item: T) -> None:
        """Add an item; on return it has been handled, or the present owner will handle it."""
        self._items.append(item)
        mine = self._calls
        if mine.pending is not None:
            # Posted from a call below: its calls queue up there, however deep this goes.
            self._drain(mine.pending)
            return
        calls: deque[Call] = deque()
        self._drain(calls)
        if calls:
            mine.pending = calls
            try:
                while calls:
                    calls.popleft()()
            finally:
                mine.pending = None

    def _drain(self, calls: deque[Call]) -> None:
        items, owned, handle = self._items, self._owned, self._handle
        # The outer loop looks again after giving up ownership: an item posted by a thread that
        # found the box owned, just before it was released, must not be left behind.
        while items and owned.acquire(blocking=False):
            try:
                while items:
                    handle(items.popleft(), calls)
            finally:
                owned.release()
