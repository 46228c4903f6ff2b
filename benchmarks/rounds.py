"""Rounds: how contestants are compared, and run in processes of their own."""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coinfer.metrics.paired import LEAST_ROUNDS, PairedRatio, paired_ratio

__all__ = ["Ratio", "output_of", "ratio_of"]


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as good one is as the other, for a table and for a requirement.

    Quick runs have too few rounds for a claim; then there are no bounds, and the text says so.

    Attributes:
        median: Of the ratios within the rounds.
        paired: With bounds; None of fewer than nine rounds.
    """

    median: float
    paired: PairedRatio | None

    @property
    def inverse(self) -> Ratio:
        """As the other one sees it: of times, how much longer."""
        return Ratio(1 / self.median, None if self.paired is None else self.paired.inverse)

    @property
    def bounds(self) -> str:
        """The 95 % interval."""
        if self.paired is None:
            return "too few rounds"
        return f"95 %: {self.paired.lower:.2f} to {self.paired.upper:.2f}"

    def __str__(self) -> str:
        if self.paired is None:
            return f"{self.median:.2f}x"
        return str(self.paired)


def ratio_of(ours: Sequence[float], theirs: Sequence[float], *, larger_is_better: bool) -> Ratio:
    """Compare figures of the same rounds; above 1, ours is better."""
    if len(ours) >= LEAST_ROUNDS:
        paired = paired_ratio(ours, theirs, larger_is_better=larger_is_better)
        return Ratio(paired.median, paired)
    over, under = (ours, theirs) if larger_is_better else (theirs, ours)
    return Ratio(statistics.median(a / b for a, b in zip(over, under, strict=True)), None)


def output_of(command: Sequence[object], environment: Mapping[str, str] | None = None) -> str:
    """Run a contestant in a process of its own and return what it printed.

    Args:
        command: Program and arguments.
        environment: Variables beside those of this process.

    Raises:
        SystemExit: it failed; with its own words.
    """
    words = [str(word) for word in command]
    variables = os.environ | dict(environment or {})
    done = subprocess.run(words, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr}")
    return done.stdout
