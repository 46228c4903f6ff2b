"""Rounds: who is measured when, so that drift of the machine hits all alike."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["in_turn", "median_ratio", "output_of"]


def in_turn(names: Iterable[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Yield (round, name): everybody once in a round, in reverse order in every second one."""
    order = list(names)
    for number in range(rounds):
        for name in order if number % 2 == 0 else reversed(order):
            yield number, name


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median over the rounds of the ratio within a round."""
    pairs = zip(over, under, strict=True)
    return statistics.median(a / b if b else math.inf for a, b in pairs)


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
