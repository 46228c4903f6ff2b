"""Names in rotation, as often as their weights say. Knows nothing about models.

Smooth weighted round robin: each turn every name gains its weight, the richest one is taken and
pays the sum of all weights. No name is ever a whole turn ahead of its share, and after as many
turns as the whole-number weights add up to, all counts are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from math import lcm

__all__ = ["rotation"]


def rotation(weights: Mapping[str, float]) -> Iterator[str]:
    """Yield names for ever, in proportion to positive weights; ties go to the one given first.

    >>> from itertools import islice
    >>> "".join(islice(rotation({"a": 5, "b": 1, "c": 1}), 7))
    'aabacaa'
    """
    # Whole numbers: sums of floats would drift away from the proportions. Through the text,
    # because what the user wrote is 0.1 and not the binary fraction next to it.
    exact = {name: Fraction(repr(weight)) for name, weight in weights.items()}
    unit = lcm(*(weight.denominator for weight in exact.values()))
    gains = {name: int(weight * unit) for name, weight in exact.items()}
    price = sum(gains.values())
    wealth = dict.fromkeys(gains, 0)
    while True:
        for name, gain in gains.items():
            wealth[name] += gain
        richest = max(wealth, key=wealth.__getitem__)
        wealth[richest] -= price
        yield richest
