"""Work: how much a run has to do at other sizes of a model's open dimensions. A value.

It is a polynomial in the sizes, fitted to the model's own arithmetic and bytes
(`coinfer.graph.work_fit`), and knows no graph. Requests of about equal work are of one *class of
sizes*: they wait in one lane and are expected to take equally long.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from coinfer.machine.profile import STEP

__all__ = ["Axis", "SizeClasses", "Work"]

LOWEST, HIGHEST = -10, 21
"""32 classes: from a tenth of the work of the smallest sample to a hundred times as much."""

_WIDE = 3
"""Where requests are padded, so many classes of sizes are one."""

_MOST_REMEMBERED = 4096


class Axis(NamedTuple):
    """Where the size of an open dimension is read from a request.

    Attributes:
        input: Name of an input.
        axis: The axis of it.
    """

    input: str
    axis: int


@dataclass(frozen=True, slots=True)
class Work:
    """How the work of a run of one sample grows with the sizes of open dimensions.

    Attributes:
        axes: Where each open dimension's size is read, by its name; without the batch.
        terms: Factors by the dimensions that they multiply: `("h", "w")` is the product of both,
            `("n", "n")` a square, `()` what does not depend on any size.
        base: The work at the smallest sample, in the same unit: that of class 0.
        padded: Dimensions along which requests are padded to share runs: requests count as equal
            whatever these are, and classes of sizes are wider, by a factor of about 2.

    >>> work = Work({"w": Axis("x", 3)}, {(): 10.0, ("w",): 2.0}, base=20.0)
    >>> work.ratio({"w": 5}), work.ratio({"w": 15}), work.size_class({"w": 15})
    (1.0, 2.0, 4)
    """

    axes: Mapping[str, Axis] = field(default_factory=dict)
    terms: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    base: float = 1.0
    padded: tuple[str, ...] = ()

    def at(self, sizes: Mapping[str, int]) -> float:
        """Return the work at these sizes of all open dimensions; a size that is missing is 1."""
        return sum(
            factor * math.prod(sizes.get(name, 1) for name in names)
            for names, factor in self.terms.items()
        )

    def ratio(self, sizes: Mapping[str, int]) -> float:
        """Return how many times the work of the smallest sample these sizes take."""
        return self.at(sizes) / self.base

    def size_class(self, sizes: Mapping[str, int]) -> int:
        """Return the class of sizes: the logarithm of the ratio to the base `STEP`, rounded up.

        Work beyond the lowest and the highest class counts as theirs.
        """
        ratio = self.ratio(sizes)
        if ratio <= STEP**LOWEST:
            return LOWEST
        # What is a hair above a step because of rounding is that step.
        found = min(HIGHEST, math.ceil(math.log(ratio, STEP) - 1e-6))
        return min(HIGHEST, -(-found // _WIDE) * _WIDE) if self.padded else found

    def sizes_of(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, int]:
        """Read the sizes of a request's inputs, which fit the model."""
        return {name: inputs[of].shape[axis] for name, (of, axis) in self.axes.items()}


class SizeClasses:
    """The classes of sizes of the requests of one model, and numbers of the exact sizes.

    >>> classes = SizeClasses(Work({"w": Axis("x", 0)}, {("w",): 1.0}, base=4.0))
    >>> [classes({"x": np.zeros(size)}) for size in (4, 5, 6, 5)]
    [(0, 0), (1, 1), (2, 2), (1, 1)]
    """

    __slots__ = ("_axes", "_known", "_numbers", "_numbers_of", "_work")

    def __init__(self, work: Work) -> None:
        self._work = work
        self._axes = tuple(work.axes.values())
        self._known: dict[tuple[int, ...], tuple[int, int]] = {}
        self._numbers = count()
        self._numbers_of: dict[tuple[int, ...], int] = {}

    def __call__(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> tuple[int, int]:
        """Return the class of a request and the number of its sizes; equal numbers, equal sizes.

        Any thread may ask; the inputs fit the model.
        """
        sizes = tuple([inputs[of].shape[axis] for of, axis in self._axes])
        found = self._known.get(sizes)
        if found is None:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
                self._numbers_of.clear()
            named = dict(zip(self._work.axes, sizes, strict=True))
            number = self._number(named)
            found = self._known[sizes] = self._work.size_class(named), number
        return found

    def _number(self, sizes: Mapping[str, int]) -> int:
        """Return the number of sizes, whatever those are along which requests are padded."""
        if not self._work.padded:
            return next(self._numbers)
        fixed = tuple(size for name, size in sizes.items() if name not in self._work.padded)
        number = self._numbers_of.get(fixed)
        if number is None:
            number = self._numbers_of[fixed] = next(self._numbers)
        return number
