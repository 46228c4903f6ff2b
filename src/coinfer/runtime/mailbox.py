"""Mailbox: lets many threads post events, one thread at a time own the core, and none wait.

A thread that posts drains the box itself unless another thread is at it, which then takes the event
along. Handing every event to an owner thread instead would cost two thread switches more per
request, about 20 microseconds each.

The main thread is the exception. A signal handler may raise there after every call, and half an
event would be handled: so it adds its item and rings for another thread. To add it is one step of
the interpreter. A thread that adds several items before it looks is another exception: what it
adds is handled together.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Mailbox"]

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")
LentT = TypeVar("LentT")

_present = threading.get_ident
_main: int = threading.main_thread().ident or 0


def _find_main() -> None:
    """After a fork the thread that forked is the main one."""
    global _main
    _main = threading.get_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_find_main)


class _Here(threading.local):
    """Whether the present thread is answering further up its stack."""

    answering = False


class Mailbox(Generic[ItemT, AnswerT, LentT]):
    """Serialises `handle(item, answers)` over all posting threads, in the order of posting.

    `handle` may post, and appends to `answers` what is to be given to `answer` once ownership was
    given up: the owner itself never runs foreign code. `answer` may post, too.

    Args:
        handle: Handles an item while no other thread does.
        answer: Takes an answer.
        ring: Makes some thread but the main one call `look`, soon; without, the main thread is as
            any other.

    Attributes:
        posted: What is not handled yet; first what is being handled, if that is so. Only the owner
            takes away from it.
        later: By thread, what is called if it adds an item with `post_with_others`: it is to have
            the thread look; of the main thread, another.
        lent: What the owner may leave to the thread that handles the present item; None: nothing.
    """

    __slots__ = (
        "_answer",
        "_answers",
        "_handle",
        "_here",
        "_owned",
        "_ring",
        "later",
        "lent",
        "posted",
    )

    def __init__(
        self,
        handle: Callable[[ItemT, deque[AnswerT]], None],
        answer: Callable[[AnswerT], None],
        ring: Callable[[], None] | None = None,
    ) -> None:
        self._handle = handle
        self._answer = answer
        self._ring = ring
        self.posted: deque[ItemT] = deque()
        self._answers: deque[AnswerT] = deque()
        self._owned = threading.Lock()
        self._here = _Here()
        self.later: dict[int, Callable[[], None]] = {} if ring is None else {_main: ring}
        self.lent: LentT | None = None

    @property
    def is_answering(self) -> bool:
        """Whether the calling thread is inside `answer`."""
        return self._here.answering

    @property
    def items(self) -> list[ItemT]:
        """What is not handled yet, or being handled."""
        return list(self.posted)

    def post(self, item: ItemT) -> None:
        """Add an item; on return it has been handled, or the present owner will handle it.

        From the main thread, a thread that was rung for may handle it instead.
        """
        if self._ring is not None and _present() == _main:
            try:
                self.posted.append(item)
                self._ring()
            except BaseException:  # a signal handler raised: perhaps before anybody was told
                self._ring()
                raise
            return
        self.posted.append(item)
        self.look()

    def post_with_others(self, item: ItemT) -> None:
        """Add an item, as `post` does; a thread of `later` handles it with those that follow."""
        later = self.later.get(_present())
        if later is None:
            self.posted.append(item)
            self.look()
            return
        try:
            self.posted.append(item)
            later()
        except BaseException:  # as in `post`
            later()
            raise

    def post_here(self, item: ItemT) -> None:
        """Add an item, as `post` does, in a thread that is not the main one."""
        self.posted.append(item)
        self.look()

    def post_later(self, item: ItemT) -> None:
        """Add an item for another thread to handle; takes no lock, so the collector may do it."""
        self.posted.append(item)
        if self._ring is not None:
            self._ring()

    def look_and_take(self, lent: LentT) -> None:
        """Handle what is there, as `look` does; the owner may leave something to the caller.

        Written out, as `look` is on the path of every request.

        Args:
            lent: Is filled with that.
        """
        items, owned = self.posted, self._owned
        while items and owned.acquire(False):
            self.lent = lent
            try:
                while items:
                    try:
                        self._handle(items[0], self._answers)
                    finally:
                        items.popleft()
            finally:
                self.lent = None
                owned.release()
        if self._answers:
            self._give_answers()

    def look(self) -> None:
        """Handle what is there, unless another thread is at it."""
        items, owned = self.posted, self._owned
        # The outer loop looks again after giving up ownership: an item posted by a thread that
        # found the box owned, just before it was released, must not be left behind.
        while items and owned.acquire(False):
            try:
                while items:
                    try:
                        self._handle(items[0], self._answers)
                    finally:  # whoever counts what is there misses none meanwhile
                        items.popleft()
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
