"""CountRange: a number of operations as far as it is known: at least, at most. A pure value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import add, mul
from typing import Final, Self

__all__ = ["UNKNOWN", "CountRange"]


@dataclass(frozen=True, slots=True)
class CountRange:
    """How many there are at least, and how many at most; None if nothing limits them.

    >>> CountRange.exactly(3) + CountRange(1, 4), CountRange.exactly(2) * CountRange(1, None)
    (CountRange(least=4, most=7), CountRange(least=2, most=None))
    """

    least: int
    most: int | None

    @classmethod
    def exactly(cls, number: int) -> Self:
        """Make the range that holds one number."""
        return cls(number, number)

    @classmethod
    def total(cls, ranges: Iterable[CountRange]) -> CountRange:
        """Add ranges up.

        >>> CountRange.total([]).exact
        0
        """
        return sum(ranges, CountRange.exactly(0))

    @property
    def exact(self) -> int | None:
        """The number, if only one is in the range."""
        return self.most if self.least == self.most else None

    def __add__(self, other: CountRange) -> CountRange:
        return CountRange(self.least + other.least, _if_known(add, self.most, other.most))

    def __mul__(self, other: CountRange) -> CountRange:
        """Multiply; nothing, however often, is nothing."""
        if self.most == 0 or other.most == 0:
            return CountRange.exactly(0)
        return CountRange(self.least * other.least, _if_known(mul, self.most, other.most))

    def __or__(self, other: CountRange) -> CountRange:
        """Return the range of what is in either one.

        >>> CountRange.exactly(3) | CountRange.exactly(8)
        CountRange(least=3, most=8)
        """
        return CountRange(min(self.least, other.least), _if_known(max, self.most, other.most))


def _if_known(combine: Callable[[int, int], int], one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else combine(one, other)


UNKNOWN: Final = CountRange(0, None)
"""Nothing is known of the number."""
