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

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")


class _Here(threading.local):
    """Whether the present thread is answering further up its stack."""

    answering = False


class Mailbox(Generic[ItemT, AnswerT]):
    """Serialises `handle(item, answers)` over all posting threads, in the order of posting.

    `handle` may post, and appends to `answers` what is to be given to `answer` once ownership was
    given up: the owner itself never runs foreign code. `answer` may post, too.
    """

    __slots__ = ("_answer", "_answers", "_handle", "_here", "_items", "_owned")

    def __init__(
        self,
        handle: Callable[[ItemT, deque[AnswerT]], None],
        answer: Callable[[AnswerT], None],
    ) -> None:
        self._handle = handle
        self._answer = answer
        self._items: deque[ItemT] = deque()
        self._answers: deque[AnswerT] = deque()
        self._owned = threading.Lock()
        self._here = _Here()

    @property
    def is_answering(self) -> bool:
        """Whether the calling thread is inside `answer`."""
        return self._here.answering

    def post(self, item: ItemT) -> None:
        """Add an item; on return it has been handled, or the present owner will handle it."""
        items, owned = self._items, self._owned
        items.append(item)
        # The outer loop looks again after giving up ownership: an item posted by a thread that
        # found the box owned, just before it was released, must not be left behind.
        while items and owned.acquire(False):
            try:
                while items:
                    self._handle(items.popleft(), self._answers)
            finally:
                owned.release()
        if self._answers:
            self._give_answers()

    def _give_answers(self) -> None:
        here = self._here
        if here.answering:
            return  # posted by an answer: the loop below goes on when that one returns
        answers, answer = self._answers, self._answer
        here.answering = True
        try:
            while answers:
                try:
                    next_one = answers.popleft()
                except IndexError:
                    return  # another thread was quicker
                answer(next_one)
        finally:
            here.answering = False
