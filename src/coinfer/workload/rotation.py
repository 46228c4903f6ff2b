"""Rotation: yield names in turn, as often as their weights say.

Smooth weighted round robin: in each turn every name gains its weight, the name with the most is
taken and pays the sum of all weights. No name is ever a whole turn ahead of its share, and after as
many turns as the whole-number weights add up to, all counts are exact.
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
    # Whole numbers, because sums of floats would drift. Fractions are made from the text:
    # the user wrote 0.1 and not the binary fraction next to it.
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
