"""Measure one session: warm up, then repeat until the mean is known well enough."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from coinfer.backends.base import Session, Tensors
from coinfer.hardware.pinning import pin_current_thread

__all__ = ["Effort", "measure", "on_cores"]

R = TypeVar("R")

_LOOK_S = 0.2


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

    def is_enough(self, seconds: Sequence[float]) -> bool:
        """Tell whether these counted runs will do."""
        n = len(seconds)
        if n < max(2, self.min_runs):  # one run has no deviation
            return False
        if n >= self.max_runs or sum(seconds) >= self.max_s:
            return True
        mean, deviation = statistics.fmean(seconds), statistics.stdev(seconds)
        return deviation / math.sqrt(n) <= self.precision * mean


def measure(
    session: Session,
    feeds: Sequence[Tensors],
    effort: Effort,
    *,
    clock: Callable[[], float] = time.perf_counter,
    stop: threading.Event | None = None,
) -> tuple[float, ...]:
    """Return the service times of the counted runs, in seconds.

    Args:
        session: What to run, in the calling thread.
        feeds: Inputs, used in rotation.
        effort: When to stop.
        clock: Seconds; replaced in tests.
        stop: Set by another thread to give up after the present run.

    Raises:
        KeyboardInterrupt: `stop` was set.
    """
    seconds: list[float] = []
    for number in range(-effort.warmup_runs, max(2, effort.max_runs)):
        started = clock()
        session.run(feeds[number % len(feeds)])
        took_s = clock() - started
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt
        if number >= 0:
            seconds.append(took_s)
            if effort.is_enough(seconds):
                break
    return tuple(seconds)


def on_cores(cores: Sequence[int], call: Callable[[threading.Event], R]) -> R:
    """Call in a fresh thread pinned as the engine's worker will be; errors come through.

    The call gets an event that is set when the user interrupts the waiting thread.
    """
    results: list[R] = []
    errors: list[BaseException] = []
    stop, done = threading.Event(), threading.Event()

    def run() -> None:
        try:
            pin_current_thread(cores)
            results.append(call(stop))
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            errors.append(error)
        done.set()

    thread = threading.Thread(target=run, name="coinfer-profiler")
    thread.start()
    try:
        # Not a join: interrupted in one, Python 3.11 takes a running thread for ended. And not
        # without end, because on some systems that cannot be interrupted.
        while not done.wait(_LOOK_S):
            pass
    except KeyboardInterrupt:
        stop.set()
        done.wait()
        raise
    finally:
        thread.join()
    if errors:
        raise errors[0]
    return results[0]
