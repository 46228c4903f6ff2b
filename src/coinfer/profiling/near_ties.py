"""Near ties: outputs that may differ because an operator decided by floats that are nearly equal.

Knows arrays and which operators decide (`graph.decisions`); runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from coinfer.backends.base import Tensors
from coinfer.profiling.error import gap

if TYPE_CHECKING:
    from coinfer.graph.decisions import Decision

__all__ = ["NearTies", "near_ties"]


class NearTies(NamedTuple):
    """What came of near ties in one sample.

    Attributes:
        outputs: Outputs of the model that may differ.
        error: The largest relative error of the floats that decided.
    """

    outputs: frozenset[str] = frozenset()
    error: float = 0.0


def near_ties(
    decisions: Sequence[Decision], values: Tensors, reference: Tensors, tolerance: float
) -> NearTies:
    """Find the decisions that fell out otherwise though what decided agrees.

    Args:
        decisions: Those of the model, in topological order.
        values: What they read and made, with the inputs of the model.
        reference: The same of the reference.
        tolerance: The largest relative error of what decided.
    """
    otherwise: set[int] = set()
    outputs: frozenset[str] = frozenset()
    error = 0.0
    for at, decision in enumerate(decisions):
        if not otherwise.isdisjoint(decision.after):
            continue  # it read what follows from another one
        if all(np.array_equal(values[n], reference[n], equal_nan=True) for n in decision.made):
            continue
        apart = max((gap(values[n], reference[n]) for n in decision.floats), default=math.inf)
        if apart <= tolerance and _chose_as_well(decision, values, reference, tolerance):
            otherwise.add(at)
            outputs |= decision.outputs
            error = max(error, apart)
    return NearTies(outputs, error)


def _chose_as_well(
    decision: Decision, values: Tensors, reference: Tensors, tolerance: float
) -> bool:
    """Whether what was chosen is as good as what the reference chose, where that can be seen."""
    axis = decision.axis
    if axis is None:
        return True
    floats, name = reference[decision.floats[0]], decision.made[0]
    ours, theirs = values[name], reference[name]
    if not decision.keeps_axis:
        ours, theirs = np.expand_dims(ours, axis), np.expand_dims(theirs, axis)
    if ours.shape != theirs.shape or not ((ours >= 0) & (ours < floats.shape[axis])).all():
        return False
    chosen, wanted = (np.take_along_axis(floats, each, axis) for each in (ours, theirs))
    return gap(chosen, wanted) <= tolerance
