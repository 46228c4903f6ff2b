"""Span: a contiguous run of a model's unit subgraphs; fork: two of them that may run at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Fork", "Span", "all_spans", "boundaries", "completes", "runs"]


class Span(NamedTuple):
    """A contiguous run of unit subgraphs `first..last`, both included."""

    first: int = 0
    last: int = 0


class Fork(NamedTuple):
    """Two neighbouring spans of which the right one reads nothing that the left one makes.

    Both may run at the same time, from the boundary before `first`; a request goes on after `last`
    when both are done.

    Attributes:
        first: First unit of the left span.
        middle: First unit of the right span.
        last: Last unit of the right span.
    """

    first: int
    middle: int
    last: int

    @property
    def left(self) -> Span:
        """The span that comes first in the line of units."""
        return Span(self.first, self.middle - 1)

    @property
    def right(self) -> Span:
        """The span right after it."""
        return Span(self.middle, self.last)


def all_spans(units: int) -> list[Span]:
    """Return every span of a model of so many units."""
    return [Span(first, last) for first in range(units) for last in range(first, units)]


def runs(numbers: Iterable[int]) -> list[Span]:
    """Return ascending numbers as the longest runs of neighbours.

    >>> runs([0, 1, 2, 5])
    [Span(first=0, last=2), Span(first=5, last=5)]
    """
    found: list[Span] = []
    for number in numbers:
        if found and found[-1].last == number - 1:
            found[-1] = Span(found[-1].first, number)
        else:
            found.append(Span(number, number))
    return found


def completes(spans: Iterable[Span], units: int) -> bool:
    """Tell whether some of these spans, one after the other, make up a model of so many units.

    >>> completes([Span(0, 1), Span(1, 2)], 3), completes([Span(0, 1), Span(2, 2)], 3)
    (False, True)
    """
    return units in boundaries(spans)


def boundaries(spans: Iterable[Span]) -> set[int]:
    """Return the unit boundaries that can be reached by spans, one after the other, from the first.

    >>> sorted(boundaries([Span(0, 1), Span(3, 3)]))
    [0, 2]
    """
    reached = {0}
    for first, last in sorted(spans):
        if first in reached:
            reached.add(last + 1)
    return reached
