"""Scaling: how long a model takes on several cores, from a few numbers. Pure.

The serial part stays, the rest is shared by the cores (Amdahl, AFIPS 1967); below what memory must
bring no number of cores gets (the roofline of Williams et al., CACM 2009). What cores of another
kind or spread over several caches cost is a factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Scaling", "over_widths"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """One model on 1, 2, ... cores of one machine.

    Attributes:
        mean_s: Seconds on one core.
        serial: Share of that which does not get shorter, 0..1.
        least_s: Seconds below which no number of cores gets: weights divided by the bandwidth.

    >>> round(Scaling(mean_s=0.1, serial=0.1).seconds(9), 6)
    0.02
    """

    mean_s: float
    serial: float = 0.0
    least_s: float = 0.0

    def seconds(self, width: int, factor: float = 1.0) -> float:
        """Return the seconds on so many cores; a factor stands for what they share and are."""
        shared_s = self.mean_s * (self.serial + (1.0 - self.serial) / width)
        return max(factor * shared_s, self.least_s)


def over_widths(known: Mapping[int, float], width: int) -> float:
    """Return the seconds at a width from those at others: linear in 1 / width between neighbours.

    Exact for Amdahl's law between any two points.

    Args:
        known: Seconds by width, at least one below and one above `width`, or `width` itself.
        width: Cores.

    >>> round(over_widths({1: 0.1, 16: 0.025}, 4), 6)
    0.04
    """
    if width in known:
        return known[width]
    below, above = max(w for w in known if w < width), min(w for w in known if w > width)
    share = (1 / width - 1 / above) / (1 / below - 1 / above)
    return known[above] + (known[below] - known[above]) * share
