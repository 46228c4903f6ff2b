"""Attention: a thread that asks performs brief runs itself, instead of waking a worker for them.

To have another thread do something takes some ten microseconds, and so does its answer; threads of
one interpreter wait for each other besides. A thread that would only wait for its answer may as
well compute it, and so may one that serves many clients: what is a wake-up's work is done by then.
The core decides as always, and takes the run to be the processor's.

What preempts is performed by whoever asks for it up to half a millisecond: beside threads that give
way, to wake another one may take a time slice of theirs, and the answer another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from coinfer.core.preemption import BRIEF_S, stays_on_top
from coinfer.errors import ConfigurationError
from coinfer.machine.memories import lowers_threads
from coinfer.machine.processor import Processor
from coinfer.runtime import clock
from coinfer.runtime.mailbox import Mailbox
from coinfer.runtime.worker import Job, Worker
from coinfer.runtime.yielding import Yielding
from coinfer.threads.priority import is_lowered

__all__ = ["Attend", "Attention", "Lent", "Soon", "Taken"]

Lent = tuple[Worker, Job]
"""A job that is performed in place of a worker."""

Soon = Callable[[Callable[[], None]], object]
"""Has something called once, in a moment, by the thread that asks for it."""

Attend = Callable[[int, Soon | None], None]
"""`Engine.attend`."""

_WAKES = 2
"""Wakes that are saved: of a worker, and of whoever waits for the answer."""

_FOR_S = 0.001
"""For so long a thread performs jobs; then it goes back to what it is for."""


class Taken(list[Lent]):
    """What a thread has taken over.

    Attributes:
        only_urgent: Whether it takes nothing but what preempts.
    """

    def __init__(self, *, only_urgent: bool = False) -> None:
        self.only_urgent = only_urgent


class Attention:
    """Lends jobs of workers to threads that ask. These are never the main one: see `Mailbox`.

    Args:
        mailbox: Of the event loop.
        processors: Those of which brief runs may be lent say how long waking takes (`wake_s`), or
            preempt by the priority of threads.
        yielding: The threads that give way to what preempts.
        done: `EventLoop.done`.
    """

    def __init__(
        self,
        mailbox: Mailbox[Any, Any, Taken],
        processors: Sequence[Processor],
        yielding: Yielding,
        done: Callable[..., None],
    ) -> None:
        self._mailbox = mailbox
        alone = [p for p in processors if p.threads == 1]
        self._most_s = {p.name: p.wake_s * _WAKES for p in alone if not p.overlays}
        self._express = {p.name for p in alone if lowers_threads(p)}
        self._most_s |= dict.fromkeys(self._express, BRIEF_S)
        self._yielding = yielding
        self._done = done

    def lend(self, worker: Worker, job: Job) -> bool:
        """Lend a job to the thread that handles the present event, if it may be; tell whether.

        That is so if it takes less than the wakes that it saves, and no other is lent: were that
        one to hang, this one's processor would be given up with it. Once threads give way, it must
        be urgent, and this thread none of them; the first that preempts is never lent, for with it
        they begin.
        """
        execution, lent = job.execution, self._mailbox.lent
        if lent is None or lent:
            return False
        processor = execution.processor
        if execution.expected_s > self._most_s.get(processor, 0.0):
            return False
        if self._yielding.has_begun and (not stays_on_top(execution) or is_lowered()):
            return False
        if processor in self._express:
            if not self._yielding.is_lowering:
                return False
        elif lent.only_urgent:
            return False
        worker.lend()
        lent.append((worker, job))
        return True

    def hold(self) -> bool:
        """Let what this thread asks wait for `attend`; False in one that must not or does anyway.

        Whoever is told True calls `release`, and then `attend`.
        """
        later, thread = self._mailbox.later, threading.get_ident()
        if thread in later:
            return False
        later[thread] = _nothing
        return True

    @property
    def is_kept(self) -> bool:
        """Whether what this thread asks waits for it to attend, in a moment."""
        thread = threading.get_ident()
        return thread in self._mailbox.later and thread != threading.main_thread().ident

    def release(self) -> None:
        """Let what this thread asks be handled at once again."""
        later, thread = self._mailbox.later, threading.get_ident()
        if later.get(thread) is _nothing:  # else another thread had it attend, or no more
            later.pop(thread, None)

    def attend(self, is_over: Callable[[], bool], *, only_urgent: bool = False) -> None:
        """Handle what was asked, and perform what is brief, for a moment.

        Args:
            is_over: Tells whether the thread has what it waits for; then workers go on.
            only_urgent: Whether it performs nothing but what preempts.
        """
        mailbox, lent = self._mailbox, Taken(only_urgent=only_urgent)
        mailbox.look_and_take(lent)
        until_s = clock.now() + _FOR_S if lent else 0.0
        try:
            while lent and not is_over() and clock.now() < until_s:
                worker, job = lent.pop(0)
                event, parts = worker.run_lent(job)
                self._done(job, event, parts, is_lent=True)
                mailbox.look_and_take(lent)
        finally:
            for worker, job in lent:
                worker.give_lent(job)

    def begin(self, thread: int, soon: Soon, *, only_urgent: bool = False) -> None:
        """Have a thread attend, in a moment, whenever it asked something, until `end`.

        Arguments are those of `Engine.attend`.

        Raises:
            ConfigurationError: it is the main thread.
        """
        if thread == threading.main_thread().ident:
            raise ConfigurationError(
                "the main thread cannot attend, for a signal handler may raise there at any "
                "moment; submit requests in a thread of your own"
            )
        is_due = False

        def attend() -> None:
            nonlocal is_due
            is_due = False
            self.attend(_never, only_urgent=only_urgent)

        def note() -> None:
            nonlocal is_due
            if is_due:
                return
            is_due = True
            try:
                soon(attend)
            except RuntimeError:  # its loop is closed
                is_due = False
                self._mailbox.look()

        self._mailbox.later[thread] = note

    def end(self, thread: int) -> None:
        """Let what a thread asks be handled at once again; whatever waits is handled."""
        if thread != threading.main_thread().ident:
            self._mailbox.later.pop(thread, None)
        self._mailbox.post(_nothing)  # the main thread must not look itself


def _nothing(*_: object) -> None:
    """The thread attends itself."""


def _never() -> bool:
    return False
