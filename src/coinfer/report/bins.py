"""Count intervals and moments in equal steps of time. Knows nothing of requests or charts."""

from __future__ import annotations

import math

import numpy as np

from coinfer.report.facts import Floats

__all__ = ["edges", "mean_count", "nice_step", "number"]


def nice_step(length: float, most: int) -> float:
    """Find the smallest of 1, 2, 5, 10, 20, ... (or 0.5, 0.2, ...) that cuts into at most so many.

    >>> nice_step(13.0, 100), nice_step(100.0, 100)
    (0.2, 1.0)
    """
    if length <= 0:
        return 1.0
    least = length / most * (1 - 1e-9)
    decade = 10.0 ** math.floor(math.log10(least))
    return next(decade * factor for factor in (1, 2, 5, 10, 20) if decade * factor >= least)


def edges(first_s: float, last_s: float, most: int) -> Floats:
    """Cut a time into equal steps of a round length; the last one may reach beyond the end.

    >>> edges(0.0, 1.0, 2).tolist()
    [0.0, 0.5, 1.0]
    """
    step_s = nice_step(last_s - first_s, most)
    steps = max(1, math.ceil((last_s - first_s) / step_s - 1e-9))
    return first_s + step_s * np.arange(steps + 1, dtype=np.float64)


def mean_count(starts_s: Floats, ends_s: Floats, edges_s: Floats) -> Floats:
    """For each step, how many of the intervals were open at a time, on average.

    >>> mean_count(np.array([0.0, 1.0]), np.array([2.0, 1.5]), np.array([0.0, 1.0, 2.0])).tolist()
    [1.0, 1.5]
    """
    elapsed = _elapsed(np.sort(starts_s), edges_s) - _elapsed(np.sort(ends_s), edges_s)
    # These are differences of large sums: a rounding error may make a zero negative.
    return np.maximum(np.diff(elapsed) / np.diff(edges_s), 0.0)


def number(moments_s: Floats, edges_s: Floats) -> Floats:
    """Count the moments in each step.

    >>> number(np.array([0.1, 0.2, 1.0]), np.array([0.0, 1.0, 2.0])).tolist()
    [2.0, 1.0]
    """
    return np.histogram(moments_s[np.isfinite(moments_s)], edges_s)[0].astype(np.float64)


def _elapsed(moments_s: Floats, at_s: Floats) -> Floats:
    """The sum of the time that has passed since each moment, at each of the sorted times."""
    past = np.searchsorted(moments_s, at_s)
    sums = np.concatenate([[0.0], np.cumsum(moments_s)])
    elapsed: Floats = past * at_s - sums[past]
    return elapsed
