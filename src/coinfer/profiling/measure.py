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


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long to measure.

    Attributes:
        warmup_runs: Runs that are not counted; the first ones allocate.
        min_runs: Counted runs at least, however long they take.
        max_runs: Counted runs at most.
        max_s: Stop after this many seconds of counted runs.
        precision: Stop earlier, once the standard error of the mean is below this share of it.
    """

    warmup_runs: int = 2
    min_runs: int = 5
    max_runs: int = 200
    max_s: float = 1.5
    precision: float = 0.01

    def is_enough(self, seconds: Sequence[float]) -> bool:
        """Tell whether these counted runs will do."""
        n = len(seconds)
        if n < self.min_runs:
            return False
        if n >= self.max_runs or sum(seconds) >= self.max_s:
            return True
        return statistics.stdev(seconds) / math.sqrt(n) <= self.precision * statistics.fmean(
            seconds
        )


def measure(
    session: Session,
    feeds: Sequence[Tensors],
    effort: Effort,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, ...]:
    """Return the service times of the counted runs, in seconds.

    Args:
        session: What to run, in the calling thread.
        feeds: Inputs, used in rotation.
        effort: When to stop.
        clock: Seconds; replaced in tests.
    """
    for at in range(effort.warmup_runs):
        session.run(feeds[at % len(feeds)])
    seconds: list[float] = []
    while not effort.is_enough(seconds):
        started = clock()
        session.run(feeds[len(seconds) % len(feeds)])
        seconds.append(clock() - started)
    return tuple(seconds)


def on_cores(cores: Sequence[int], call: Callable[[], R]) -> R:
    """Call in a fresh thread pinned as the engine's worker will be; errors come through."""
    results: list[R] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            if cores:
                pin_current_thread(cores)
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="coinfer-profiler")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
