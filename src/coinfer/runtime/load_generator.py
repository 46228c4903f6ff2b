"""Load generator: submits a scenario's requests when they are due, to an engine or a server."""

from __future__ import annotations

import heapq
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from coinfer.backends.base import Tensors
from coinfer.core.request import OnLate
from coinfer.errors import ClosedError
from coinfer.runtime import clock
from coinfer.runtime.attention import Attend
from coinfer.threads.priority import give_up_lag
from coinfer.workload.load import Due, Load
from coinfer.workload.scenario import ModelSpec

__all__ = ["LoadGenerator", "Submits", "Tick"]

Tick = Callable[[float], bool]
"""Called a few times per second with the seconds since the start; False stops the load."""

_TICK_S = 0.2
_LEAD_S = 0.01

_STUCK_S = 0.5
"""Seconds after which a brief run counts as one that may never end."""


class Submits(Protocol):
    """What takes the requests of a load: an engine, or what stands for a server."""

    def submit(
        self,
        name: str,
        inputs: Tensors,
        *,
        deadline_s: float | None = None,
        priority: int = 0,
        on_late: OnLate | str = OnLate.RUN,
        due_s: float | None = None,
    ) -> Future[Any]:
        """Take one request, as `Engine.submit` does.

        Raises:
            ClosedError: no more are taken.
        """
        ...


class LoadGenerator:
    """Plays a load once.

    The next request of a closed loop is submitted by the thread that answered the last one, so no
    processor waits for a third thread to wake up. Times are counted from `start_s`, the moment of
    construction plus a little.

    Args:
        engine: Where the requests go.
        load: What is due when.
        feeds: Prepared inputs by model, used in rotation.
        specs: Deadline, priority and what to do when late, by model.
        attend: `Engine.attend`, if the thread that plays is to perform brief runs itself, once all
            that is due is submitted; that must not be the main one.
    """

    def __init__(
        self,
        engine: Submits,
        load: Load,
        feeds: Mapping[str, Sequence[Tensors]],
        specs: Mapping[str, ModelSpec],
        attend: Attend | None = None,
    ) -> None:
        self._engine = engine
        self._attend = attend
        self._load = load
        self._feeds = feeds
        self._specs = specs
        self.start_s = clock.now() + _LEAD_S
        self._agenda: list[Due] = []
        # What answers bring comes through a queue that holds no lock of Python: they come from
        # threads that may have to give way, and whoever submits in time must not wait for these.
        self._news: SimpleQueue[Due] = SimpleQueue()
        self._planning = threading.Lock()
        self._soon: deque[Callable[[], None]] = deque()
        self._away_s: list[float] = []  # since when the thread that plays performs a run
        self._is_begun = False
        self._stopped = False

    def play(self, on_tick: Tick) -> None:
        """Submit until the load's end; returns then, with requests still in flight.

        A load without an end is over when all that it wants is submitted. What comes after
        requests that are still in flight is submitted as these are answered, until `stop`.
        Once `is_stuck`, another thread may call it again: it goes on where that one stopped.
        """
        attend = self._attend
        if attend is None:
            self._play(on_tick)
            return
        thread = threading.get_ident()
        attend(thread, self._soon.append)
        try:
            self._play(on_tick)
        finally:
            attend(thread, None)

    def is_stuck(self) -> bool:
        """Tell whether the thread that plays performs a run that may never end.

        If so, it leaves when that has ended; whoever plays from then on performs none.
        """
        away_s = self._away_s.copy()
        if not away_s or clock.now() < away_s[0] + _STUCK_S:
            return False
        self._attend = None
        return self._takes_back()

    def _takes_back(self) -> bool:
        """Tell whether this thread is the first to ask since a run was begun; without a lock."""
        try:
            self._away_s.pop()
        except IndexError:
            return False
        return True

    def _play(self, on_tick: Tick) -> None:
        if not self._is_begun:
            self._is_begun = True
            self._plan(self._load.initial())
        while not self._stopped:
            now_s = clock.now() - self.start_s
            if not on_tick(now_s) or now_s >= self._load.end_s or self._is_exhausted():
                return
            if not self._submit_what_is_due(min(now_s + _TICK_S, self._load.end_s)):
                return

    def stop(self) -> None:
        """Submit nothing more; callbacks of running requests submit nothing either."""
        self._stopped = True

    def _is_exhausted(self) -> bool:
        return self._load.end_s == math.inf and not self._agenda and self._news.empty()

    def _plan(self, dues: Iterable[Due]) -> None:
        for due in dues:
            self._news.put(due)

    def _submit_what_is_due(self, until_s: float) -> bool:
        """Submit in time until the moment `until_s`, counted from the start.

        Returns:
            Whether this thread goes on; else another one does.
        """
        agenda = self._agenda
        while not (self._stopped or self._is_exhausted()):
            due_s = agenda[0].time_s if agenda else math.inf
            awaited_s = min(due_s, until_s) + self.start_s
            wait_s = awaited_s - clock.now()
            if wait_s > 0 and self._soon:  # all that is due now is submitted
                self._away_s.append(clock.now())
                self._soon.popleft()()
                if not self._takes_back():
                    return False
                continue  # what it answered may have had more submitted, to be attended as well
            if wait_s > 0:
                give_up_lag()  # others may run for some milliseconds meanwhile
                wait_s = awaited_s - clock.now()
            if wait_s > 0 or not self._news.empty():  # what is new may be due sooner
                with suppress(Empty):
                    heapq.heappush(agenda, self._news.get(timeout=max(wait_s, 0.0)))
                continue
            if due_s >= until_s:
                return True
            for following in self._submit(heapq.heappop(agenda)):
                heapq.heappush(agenda, following)
        return True

    def _submit(self, due: Due) -> Iterable[Due]:
        """Submit one request; return what is due after it, whenever that is answered."""
        spec = self._specs[due.model]
        feeds = self._feeds[due.model]
        try:
            future = self._engine.submit(
                due.model,
                feeds[due.index % len(feeds)],
                deadline_s=spec.deadline_s,
                priority=spec.priority,
                on_late=spec.on_late,
                due_s=due.due_s + self.start_s,
            )
        except ClosedError:
            self._stopped = True
            return ()
        with self._planning:
            following = self._load.after_due(due)
        future.add_done_callback(partial(self._answered, due))
        return following

    def _answered(self, due: Due, future: Future[Any]) -> None:
        if self._stopped:
            return
        completed = not future.cancelled() and future.exception() is None
        now_s = clock.now() - self.start_s
        with self._planning:
            following = self._load.after_answer(due, now_s, completed)
        for next_due in following:
            if next_due.time_s <= now_s:
                self._plan(self._submit(next_due))
            else:
                self._plan([next_due])
