"""Draw the times at which an open-loop process makes requests due: endless, in order, in blocks.

Each generator yields float64 arrays of seconds from the start. Memory is one block, however many
times are taken. Knows neither models nor the end of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import assert_never

import numpy as np
import numpy.typing as npt

from coinfer.workload.arrivals import Gamma, Periodic, Poisson

__all__ = ["Times", "drawn_times"]

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
