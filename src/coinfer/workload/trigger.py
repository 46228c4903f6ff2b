"""Trigger: decides for each frame whether a cascaded request follows. Knows no run."""

from __future__ import annotations

import numpy as np

from coinfer.workload.seeds import Purpose, generator

__all__ = ["Trigger"]

_MASK = (1 << 64) - 1


class Trigger:
    """A biased coin for each frame, the same however often and in which order it is asked for.

    So which frames set something off depends on the seed only, and not on the policy or on the
    order in which requests are completed, and nothing must be remembered. The numbers are the
    outputs of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014, figure 13) at position `index`.

    Attributes:
        probability: Of each frame, in 0..1.

    >>> trigger = Trigger(0, "speech", 0.25)
    >>> sum(trigger(index) for index in range(10_000)) / 10_000
    0.2531
    """

    def __init__(self, seed: int, name: str, probability: float) -> None:
        self.probability = probability
        self._key = int(
            generator(seed, Purpose.TRIGGER, name).integers(_MASK, dtype=np.uint64, endpoint=True)
        )
        self._below = round(probability * 2**64)

    def __call__(self, index: int) -> bool:
        """Tell whether the frame of this number sets it off."""
        return _splitmix(self._key + (index + 1) * 0x9E3779B97F4A7C15) < self._below


def _splitmix(state: int) -> int:
    state &= _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)
