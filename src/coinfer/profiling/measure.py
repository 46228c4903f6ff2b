"""Measure sessions: warm up, then repeat, in turns, until the means are known well enough."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TypeVar

from coinfer.backends.base import Session, Tensors
from coinfer.backends.patience import HangError, leave_behind, patience_s, start
from coinfer.backends.values import own_runs
from coinfer.profiling.patient_sessions import WatchedSession
from coinfer.threads.pinning import pin_current_thread

__all__ = ["TURN_S", "Effort", "Sampler", "on_cores"]

R = TypeVar("R")

_LOOK_S = 0.2

TURN_S = 0.1
"""How long a session runs before it is the next candidate's turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long to measure.

    Attributes:
        warmup_runs: Runs that are not counted; the first ones allocate.
        min_runs: Counted runs at least, however long they take; from 2.
        max_runs: Counted runs at most.
        max_s: Stop after this many seconds of counted runs.
        precision: Stop earlier, once the standard error of the mean is below this share of it.

    >>> Effort(min_runs=2).is_enough([0.01]), Effort(min_runs=2).is_enough([0.01, 0.01])
    (False, True)
    """

    warmup_runs: int = 2
    min_runs: int = 5
    max_runs: int = 200
    max_s: float = 1.5
    precision: float = 0.01

    @property
    def amounts(self) -> tuple[float, ...]:
        """Its numbers, each the larger the more is measured: so that efforts can be compared.

        >>> Effort(precision=0.02).amounts
        (2, 5, 200, 1.5, -0.02)
        """
        return (self.warmup_runs, self.min_runs, self.max_runs, self.max_s, -self.precision)

    def is_enough(self, seconds: Sequence[float]) -> bool:
        """Tell whether these counted runs will do."""
        n = len(seconds)
        if n >= max(2, self.max_runs):
            return True
        if n < max(2, self.min_runs):  # one run has no deviation
            return False
        if sum(seconds) >= self.max_s:
            return True
        mean, deviation = statistics.fmean(seconds), statistics.stdev(seconds)
        return deviation / math.sqrt(n) <= self.precision * mean


class Sampler:
    """Times one session, a turn at a time, until its mean is known well enough.

    Turns let candidates be measured side by side: on a machine whose speed drifts, two measurements
    one after the other would compare the moments and not the candidates. They also run as they will
    run later, with other models' data in the caches between. A part of a model is timed as it runs
    between others of its kind: values come and go as the library keeps them.

    Args:
        session: What to run.
        feeds: Inputs, used in rotation.
        effort: When to stop.
        clock: Seconds; replaced in tests.
    """

    def __init__(
        self,
        session: Session,
        feeds: Sequence[Tensors],
        effort: Effort,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.seconds: list[float] = []
        self._runs = own_runs(session, feeds)
        self._effort = effort
        self._clock = clock
        self._warmups_left = effort.warmup_runs

    @property
    def is_done(self) -> bool:
        """Whether the counted runs will do."""
        return self._effort.is_enough(self.seconds)

    def turn(self, stop: threading.Event | None = None, *, turn_s: float = TURN_S) -> None:
        """Run in the calling thread for `turn_s`, one run at least, or until it is done.

        Raises:
            KeyboardInterrupt: `stop` was set by another thread; the present run was finished.
        """
        clock = self._clock
        began = clock()
        while True:
            counts = self._warmups_left == 0
            started = clock()
            self._runs[len(self.seconds) % len(self._runs)]()
            ended = clock()
            if stop is not None and stop.is_set():
                raise KeyboardInterrupt
            if counts:
                self.seconds.append(ended - started)
            else:
                self._warmups_left -= 1
            if counts and (self.is_done or ended - began >= turn_s):
                return


def on_cores(
    cores: Sequence[int],
    call: Callable[[threading.Event], R],
    what: str = "",
    *,
    n_calls: int = 0,
    watched: Collection[WatchedSession] = (),
) -> R:
    """Call in a fresh thread pinned as the engine's worker will be; errors come through.

    Args:
        cores: To these the thread is pinned.
        call: Gets an event that is set when the user interrupts the waiting thread.
        what: What is done, for the message of a library that hangs.
        n_calls: How often it calls a library at most, each of which may take as long as patience
            lasts; 0: it looks after itself, or they are watched.
        watched: Sessions that it runs, or that it waits for.

    Raises:
        HangError: it has not returned by then, or a session hangs. The thread is left behind.
    """
    limit_s = patience_s() * n_calls if n_calls else math.inf
    until_s = time.monotonic() + limit_s
    result: Future[R] = Future()
    stop = threading.Event()

    def run() -> None:
        try:
            pin_current_thread(cores)
            result.set_result(call(stop))
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            result.set_exception(error)

    def wait_for_it() -> None:
        # Not a join: interrupted in one, Python 3.11 takes a running thread for ended. And not
        # without end, because on some systems that cannot be interrupted.
        while not wait([result], _LOOK_S).done:
            for session in watched:
                session.check()
            if time.monotonic() > until_s:
                raise HangError.of(what, limit_s)

    # A daemon, because one that hangs must not keep the process.
    thread = threading.Thread(target=run, name="coinfer-profiler", daemon=True)
    try:
        try:
            start(thread)
            wait_for_it()
        except KeyboardInterrupt:
            stop.set()
            if thread.is_alive():
                wait_for_it()
            raise
    except HangError:
        stop.set()  # another session may be what hangs
        leave_behind(thread)
        raise
    thread.join()
    return result.result()
