"""Wish: what whoever compresses a model wants of it. A value."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from coinfer.errors import ConfigurationError
from coinfer.graph.compressing.rank_rule import LATENCY, RankRule

__all__ = ["MAX_ERROR", "CompressionWish"]

MAX_ERROR = 0.02
"""The error that is allowed by default where ranks are chosen by latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionWish:
    """How to compress.

    Attributes:
        rule: How ranks are chosen.
        max_error: The most that outputs may be off, ||out - ref|| / ||ref||, on held-out samples;
            None: no limit, except by latency, where it is `MAX_ERROR`. Infinite: errors are not
            measured.
        svd: Decompose 1x1 convolutions and dense layers too.
        seed: Decides which samples judge, and all that is drawn.
    """

    rule: RankRule = field(default_factory=lambda: RankRule(LATENCY))
    max_error: float | None = None
    svd: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no error, or no seed.

        Raises:
            ConfigurationError: the error is not above 0, or the seed is below.
        """
        if self.seed < 0:
            raise ConfigurationError(f"--seed {self.seed} is out of range; give 0 or more")
        if self.max_error is not None and not self.max_error > 0:
            raise ConfigurationError(
                f"--max-error {self.max_error:g} is out of range; give a number above 0, e.g. "
                "0.02, or inf"
            )

    @property
    def by_latency(self) -> bool:
        """Whether ranks are chosen by measured time."""
        return self.rule.is_measured

    @property
    def limit(self) -> float:
        """The error that is allowed; infinite if there is no limit."""
        if self.max_error is None:
            return MAX_ERROR if self.by_latency else math.inf
        return self.max_error
