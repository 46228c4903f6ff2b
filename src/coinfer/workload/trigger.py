"""Trigger: decides for each frame how many cascaded requests follow. Knows no run."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate

import numpy as np

from coinfer.workload.arrivals import PoissonCount
from coinfer.workload.seeds import Purpose, generator

__all__ = ["Trigger"]

_MASK = (1 << 64) - 1

_STRIDE = 1_000_003
"""Above every count. Odd, so that followers run through all 1,024 sizes of a rotation; and prime,
so that they run through prepared inputs whose number is no power of two, too."""


class Trigger:
    """A biased coin for each frame, the same however often and in which order it is asked for.

    So which frames set something off depends on the seed only, and not on the policy or on the
    order in which requests are completed, and nothing must be remembered. The numbers are the
    outputs of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014, figure 13) at position `index`. Where
    the coin says yes, the same number decides how many follow, by inverting their distribution.

    Args:
        seed: The scenario's seed.
        name: The model that follows; picks its own random numbers.
        probability: Of each frame, in 0..1, that something follows.
        count: How many follow then.

    >>> trigger = Trigger(0, "speech", 0.25)
    >>> sum(trigger(index) for index in range(10_000)) / 10_000
    0.2531
    >>> Trigger(0, "crops", 1.0, count=3).followers(2)
    range(2000006, 2000009)
    """

    def __init__(
        self, seed: int, name: str, probability: float, count: int | PoissonCount = 1
    ) -> None:
        self._key = int(
            generator(seed, Purpose.TRIGGER, name).integers(_MASK, dtype=np.uint64, endpoint=True)
        )
        self._below = round(probability * 2**64)
        if isinstance(count, PoissonCount):
            self._least, shares = 0, _poisson_shares(count)
        else:
            self._least, shares = count, []
        # One more follows for each of these that the number is not below.
        self._more = [round(probability * share * 2**64) for share in shares]
        self._stride = 1 if count == 1 else _STRIDE

    def __call__(self, index: int) -> int:
        """Return how many requests follow the frame of this number."""
        drawn = _splitmix(self._key + (index + 1) * 0x9E3779B97F4A7C15)
        return 0 if drawn >= self._below else self._least + bisect_right(self._more, drawn)

    def followers(self, index: int) -> range:
        """Return the numbers of the requests that follow the frame of this number.

        Each is that of one frame only. Where one follows at most, it has the frame's own.
        """
        first = index * self._stride
        return range(first, first + self(index))


def _poisson_shares(count: PoissonCount) -> list[float]:
    """Return the probability of at most 0, of at most 1 and so on; the last count is left out."""
    mean = count.mean
    return list(
        accumulate(
            math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count.largest)
        )
    )


def _splitmix(state: int) -> int:
    state &= _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)
