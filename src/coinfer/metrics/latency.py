"""Two stores for latencies: all of them, or a sketch of fixed size. Knows no request and no clock.

Both answer quantiles by nearest rank (the smallest value that at least a share `q` of the values
do not exceed), so that an exact quantile is always a latency that really occurred, and the sketch
approximates that very number.
"""

from __future__ import annotations

import math
from array import array
from typing import Protocol

import numpy as np

__all__ = ["ExactLatencies", "Latencies", "LatencySketch"]

_GROWTH = 1.01
_PER_LOG = 1.0 / math.log(_GROWTH)
_SMALLEST_S = 1e-9
_LARGEST_S = 1e9
_TOO_SMALL = math.floor(math.log(_SMALLEST_S) * _PER_LOG) - 1
"""The bucket of all that is below the smallest, in virtual time often exactly 0."""

_AT_ONCE = 1024
"""As many latencies are kept before they are sorted into buckets."""


class Latencies(Protocol):
    """Takes latencies one by one; tells their mean, quantiles and maximum, in seconds."""

    @property
    def count(self) -> int:
        """How many were added."""
        ...

    def add(self, seconds: float, /) -> None:
        """Take one latency."""
        ...

    def mean_s(self) -> float:
        """Arithmetic mean; NaN if empty."""
        ...

    def quantile_s(self, q: float) -> float:
        """Nearest-rank quantile, `q` in 0..1; NaN if empty."""
        ...


class ExactLatencies:
    """Keeps every latency: eight bytes each.

    >>> latencies = ExactLatencies()
    >>> for seconds in (0.03, 0.01, 0.02): latencies.add(seconds)
    >>> latencies.quantile_s(0.5), latencies.quantile_s(1.0)
    (0.02, 0.03)
    """

    __slots__ = ("_ordered", "_values", "add")

    def __init__(self) -> None:
        self._values = array("d")
        self._ordered: list[float] = []
        self.add = self._values.append

    @property
    def count(self) -> int:
        """How many were added."""
        return len(self._values)

    def mean_s(self) -> float:
        """Arithmetic mean; NaN if empty."""
        return math.fsum(self._values) / len(self._values) if self._values else math.nan

    def quantile_s(self, q: float) -> float:
        """Nearest-rank quantile, `q` in 0..1; NaN if empty."""
        if len(self._ordered) != len(self._values):
            self._ordered = sorted(self._values)
        return self._ordered[_rank(q, len(self._ordered)) - 1] if self._ordered else math.nan


class LatencySketch:
    """Counts latencies in buckets whose borders grow by 1 %; memory does not grow with the count.

    A quantile is the harmonic middle of its bucket, hence within (1.01 - 1) / (1.01 + 1) < 0.5 %
    of the exact nearest-rank quantile for latencies of 1 ns to 1e9 s (at most about 4,200
    buckets, kept only where something fell in); what is below 1 ns counts as 0. Mean,
    minimum and maximum are exact. The bucket rule is that of Masson, Rim, Lee, "DDSketch" (VLDB
    2019, section 2.1), without collapsing.

    >>> sketch = LatencySketch()
    >>> for i in range(1, 1001): sketch.add(i / 1000)
    >>> abs(sketch.quantile_s(0.99) - 0.990) < 0.005 * 0.990
    True
    """

    __slots__ = ("_buckets", "_count", "_fresh", "_highest", "_lowest", "_sum")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._count = 0
        self._sum = 0.0
        self._lowest = math.inf
        self._highest = -math.inf
        self._fresh: list[float] = []
        """Not yet sorted into buckets: many at once cost a tenth of one by one."""

    @property
    def count(self) -> int:
        """How many were added."""
        return self._count + len(self._fresh)

    def add(self, seconds: float, /) -> None:
        """Take one latency."""
        fresh = self._fresh
        fresh.append(seconds)
        if len(fresh) == _AT_ONCE:
            self._sort_in()

    def mean_s(self) -> float:
        """Arithmetic mean; NaN if empty."""
        self._sort_in()
        return self._sum / self._count if self._count else math.nan

    def quantile_s(self, q: float) -> float:
        """Nearest-rank quantile within 0.5 %, `q` in 0..1; NaN if empty."""
        self._sort_in()
        if not self._count:
            return math.nan
        rank = _rank(q, self._count)
        if rank == self._count:
            return self._highest
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                middle = 2.0 * _GROWTH**bucket / (_GROWTH + 1.0)
                middle = 0.0 if bucket == _TOO_SMALL else middle
                return min(max(middle, self._lowest), self._highest)
        raise AssertionError("the buckets hold fewer values than were added")

    def _sort_in(self) -> None:
        if not self._fresh:
            return
        values = np.array(self._fresh)
        self._fresh.clear()
        self._count += len(values)
        self._sum += float(values.sum())
        self._lowest = min(self._lowest, float(values.min()))
        self._highest = max(self._highest, float(values.max()))
        logarithms = np.log(np.clip(values, _SMALLEST_S, _LARGEST_S))
        numbers = np.where(values < _SMALLEST_S, _TOO_SMALL, np.ceil(logarithms * _PER_LOG))
        found, counts = np.unique(numbers, return_counts=True)
        buckets = self._buckets
        for bucket, count in zip(found.astype(int).tolist(), counts.tolist(), strict=True):
            buckets[bucket] = buckets.get(bucket, 0) + count


def _rank(q: float, count: int) -> int:
    # The small allowance keeps 0.95 * 20 = 19.000000000000004 from becoming rank 20.
    return min(count, max(1, math.ceil(q * count - 1e-9)))
