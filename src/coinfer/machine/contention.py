"""Contention: how much processors slow each other down while they run together. Pure data.

Processors of one machine share caches, memory bandwidth and power even where they share no compute
unit. Knows neither how the factors were measured (`profiling`) nor who reads them (`sim`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from coinfer.errors import ConfigurationError

__all__ = ["Contention"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contention:
    """Slowdown factors by pairs of processors.

    Attributes:
        factors: `{processor: {other: factor}}`: while `other` runs, `processor` takes `factor`
            times as long. A missing pair does not disturb: factor 1.
        samples: From how many runs the factors were measured; 0 if they were given.

    >>> shared = Contention(factors={"cpu0": {"cpu1": 1.2, "gpu": 1.5}})
    >>> shared.slowdown("cpu0", ["cpu1", "gpu"]), shared.slowdown("cpu1", ["cpu0"])
    (1.7999999999999998, 1.0)
    """

    factors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    samples: int = 0

    def __post_init__(self) -> None:
        """Refuse factors that cannot be."""
        for name, row in self.factors.items():
            for other, factor in row.items():
                if not (math.isfinite(factor) and factor > 0):
                    raise ConfigurationError(
                        f"the slowdown of {name!r} by {other!r} is {factor}; it must be positive"
                    )

    def __bool__(self) -> bool:
        """Tell whether any processor disturbs another."""
        return any(factor != 1.0 for row in self.factors.values() for factor in row.values())

    def slowdown(self, processor: str, others: Iterable[str]) -> float:
        """Return how many times longer a processor takes while these others run.

        Factors of several others multiply: each is assumed to take its share of what is left.
        """
        row = self.factors.get(processor)
        if row is None:
            return 1.0
        return math.prod(row.get(other, 1.0) for other in others)
