"""Times at which open-loop processes make requests due: drawn, and merged into one order.

Times come in order, in blocks: float64 arrays of seconds from the start. Memory is one block of
each process, however many times are taken. Knows no models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import assert_never

import numpy as np
import numpy.typing as npt

from coinfer.workload.arrivals import Gamma, Periodic, Poisson

__all__ = ["Times", "drawn_times", "merged"]

Times = npt.NDArray[np.float64]

_BLOCK = 4096


def drawn_times(process: Periodic | Poisson | Gamma, rng: np.random.Generator) -> Iterator[Times]:
    """Yield the times of a process.

    Those of random processes are sums of gaps: exponential ones, or Gamma-distributed ones with the
    given mean and coefficient of variation.
    """
    mean_s = 1 / process.rate_per_s
    match process:
        case Periodic():
            return _periodic(process, rng)
        case Poisson():
            return _summed(lambda: rng.exponential(mean_s, _BLOCK))
        case Gamma():
            shape = process.cv**-2
            scale_s = 1 / (process.rate_per_s * shape)
            return _summed(lambda: rng.gamma(shape, scale_s, _BLOCK))
        case _:
            assert_never(process)


def _periodic(process: Periodic, rng: np.random.Generator) -> Iterator[Times]:
    """Yield `phase + k * period`, each late by up to the jitter.

    Counted from `k` and not summed up, so that rounding errors do not pile up.
    """
    steps = np.arange(_BLOCK, dtype=np.float64)
    for block in count():
        times = process.phase_s + (steps + block * _BLOCK) / process.rate_per_s
        if process.jitter_s:
            times += rng.uniform(0.0, process.jitter_s, _BLOCK)
        yield times


def _summed(draw_gaps_s: Callable[[], Times]) -> Iterator[Times]:
    last_s = 0.0
    while True:
        times = last_s + np.cumsum(draw_gaps_s())
        last_s = float(times[-1])
        yield times


def merged(
    processes: Sequence[Iterator[Times]], end_s: float = math.inf
) -> Iterator[tuple[list[float], list[int], list[int]]]:
    """Yield blocks of times in order, with the process of each and how many it had before.

    What falls together comes in the order of the processes. A block of each is sorted at once: that
    costs a tenth of a heap that holds the next time of each.

    Args:
        processes: The times of each, in blocks, in order; endless or not.
        end_s: Nothing from this moment on is among them.

    >>> times = [iter([np.array([1.0, 4.0])]), iter([np.array([1.0]), np.array([2.0])])]
    >>> list(merged(times))
    [([1.0, 1.0], [0, 1], [0, 0]), ([2.0], [1], [1]), ([4.0], [0], [1])]
    """
    known: list[Times] = [np.empty(0) for _ in processes]
    n_before = [0] * len(processes)
    while True:
        for at, times in enumerate(known):
            if not len(times):
                known[at] = next((block for block in processes[at] if len(block)), times)
        last_s = [times[-1] if len(times) else math.inf for times in known]
        soonest = int(np.argmin(last_s))
        upto_s = last_s[soonest]
        if upto_s == math.inf:
            return
        # All times before this moment are known. The process whose known times end here may have
        # more at this very moment; they come before those of later processes.
        counts = [
            int(t.searchsorted(upto_s, "right" if at <= soonest else "left"))
            for at, t in enumerate(known)
        ]
        times = np.concatenate([t[:n] for t, n in zip(known, counts, strict=True)])
        owners = np.repeat(np.arange(len(known)), counts)
        numbers = np.concatenate([k + np.arange(n) for k, n in zip(n_before, counts, strict=True)])
        order = np.argsort(times, kind="stable")
        known = [t[n:] for t, n in zip(known, counts, strict=True)]
        n_before = [k + n for k, n in zip(n_before, counts, strict=True)]
        order = order[: int(np.searchsorted(times, end_s, sorter=order))]
        yield times[order].tolist(), owners[order].tolist(), numbers[order].tolist()
        if upto_s >= end_s:
            return
