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

__all__ = ["Mailbox"]

I = TypeVar("I")  # noqa: E741 - item
A = TypeVar("A")


class _Nested(threading.local):
    """What the present thread has still to answer, if it is at it."""

    answers: deque[object] | None = None


class Mailbox(Generic[I, A]):
    """Serialises `handle(item, answers)` over all posting threads, in the order of posting.

    `handle` may post, and appends to `answers` what is to be given to `answer` once ownership was
    given up: the owner itself never runs foreign code. `answer` may post, too.
    """

    __slots__ = ("_answer", "_handle", "_items", "_nested", "_owned")

    def __init__(self, handle: Callable[[I, deque[A]], None], answer: Callable[[A], None]) -> None:
        self._handle = handle
        self._answer = answer
        self._items: deque[I] = deque()
        self._owned = threading.Lock()
        self._nested = _Nested()

    def post(self, item: I) -> None:
        """Add an item; on return it has been handled, or the present owner will handle it."""
        self._items.append(item)
        nested = self._nested
        answers: deque[A] | None = nested.answers  # type: ignore[assignment]
        if answers is not None:
            # Posted while answering: the answers to this queue up there, however deep this goes.
            self._drain(answers)
            return
        answers = deque()
        self._drain(answers)
        if not answers:
            return
        nested.answers = answers  # type: ignore[assignment]
        try:
            answer = self._answer
            while answers:
                answer(answers.popleft())
        finally:
            nested.answers = None

    def _drain(self, answers: deque[A]) -> None:
        items, owned, handle = self._items, self._owned, self._handle
        # The outer loop looks again after giving up ownership: an item posted by a thread that
        # found the box owned, just before it was released, must not be left behind.
        while items and owned.acquire(False):
            try:
                while items:
                    handle(items.popleft(), answers)
            finally:
                owned.release()
