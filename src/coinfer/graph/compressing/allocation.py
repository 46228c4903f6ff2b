"""Allocation: which step on which layer next, by error added per cost saved. Knows no layer.

Each layer has options, each with what it saves and the error that it adds. Of these only the lower
convex hull is of use: between two of its corners lies no cheaper way. All corners of all layers in
the order of their slopes are the steps of the greedy rule, which for sums is optimal up to the last
step (Everett 1963, generalised Lagrange multipliers; Shoham and Gersho 1988 for bits).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Option", "Step", "chosen_after", "steps"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Option(NamedTuple, Generic[T]):
    """What could become of a layer.

    Attributes:
        what: The choice.
        saved: Cost saved, in any unit; only what is above 0 is of use.
        error: Error added, in a unit in which errors of layers add up, e.g. squared.
    """

    what: T
    saved: float
    error: float


class Step(NamedTuple, Generic[K, T]):
    """One layer goes on to its next option.

    Attributes:
        key: The layer.
        option: What it has from now on.
        saved: Cost that this saves on top.
        error: Error that this adds on top.
    """

    key: K
    option: Option[T]
    saved: float
    error: float


def steps(options: Mapping[K, Sequence[Option[T]]]) -> list[Step[K, T]]:
    """Order the steps of all layers, the least error per cost saved first.

    >>> found = steps({"a": [Option("a1", 1.0, 1.0), Option("a2", 2.0, 9.0)],
    ...                "b": [Option("b1", 3.0, 6.0)]})
    >>> [step.option.what for step in found]
    ['a1', 'b1', 'a2']
    """
    found: list[tuple[float, int, Step[K, T]]] = []
    for key, each in options.items():
        saved, error = 0.0, 0.0
        for corner in _hull(each):
            step = Step(key, corner, corner.saved - saved, corner.error - error)
            found.append((step.error / step.saved, len(found), step))
            saved, error = corner.saved, corner.error
    return [step for _, _, step in sorted(found, key=lambda entry: entry[:2])]


def chosen_after(taken: Sequence[Step[K, T]]) -> dict[K, T]:
    """Return what each layer has after these steps; layers that took none are left out."""
    return {step.key: step.option.what for step in taken}


def _hull(options: Sequence[Option[T]]) -> list[Option[T]]:
    """Return the corners of the lower convex hull, from (0, 0) on, by what they save."""
    corners: list[Option[T]] = []
    useful = [option for option in options if option.saved > 0]
    for option in sorted(useful, key=lambda each: (each.saved, -each.error)):
        while corners and _slope(corners, option) <= _slope(corners[:-1], corners[-1]):
            corners.pop()
        corners.append(option)
    return corners


def _slope(before: Sequence[Option[T]], option: Option[T]) -> float:
    saved, error = (before[-1].saved, before[-1].error) if before else (0.0, 0.0)
    gained = option.saved - saved
    return (option.error - error) / gained if gained > 0 else float("-inf")
