"""Cold: how much longer a model takes where its processor did something else before. Pure data.

Knows neither how it was measured (`profiling`) nor who reads it (`sim`).
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["IDLE_S", "Cold"]

IDLE_S = 0.02
"""A processor that rested this long, in seconds, has become as slow to start as it will be."""


class Cold(NamedTuple):
    """Factors on the time that a model takes when it runs right after itself.

    Attributes:
        after_other: Another model was the last one: its weights are in the caches.
        after_idle: Nothing ran for `IDLE_S` or longer: clocks and threads have gone to sleep.

    >>> Cold(after_other=1.1, after_idle=1.2).factor(is_switch=False, idle_s=0.01)
    1.1
    """

    after_other: float = 1.0
    after_idle: float = 1.0

    def factor(self, *, is_switch: bool, idle_s: float) -> float:
        """Return how many times longer it takes; a shorter rest counts in proportion."""
        rested = 1.0 + (self.after_idle - 1.0) * min(1.0, idle_s / IDLE_S)
        return max(rested, self.after_other) if is_switch else rested
