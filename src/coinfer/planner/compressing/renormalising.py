"""Renormalising: estimate the batch norms of a compressed model anew, where that helps."""

from __future__ import annotations

from collections.abc import Sequence

from coinfer.backends.base import Backend, Tensors
from coinfer.graph.compressing.batch_norm import moved, normalised_values
from coinfer.graph.operators import inlined
from coinfer.model import Model
from coinfer.planner.compressing.calibration import outputs_of, statistics_of
from coinfer.planner.compressing.error import largest_error

__all__ = ["renormalised"]

_PASSES = 2
"""A norm changes what those behind it see."""


def renormalised(
    original: Model, compressed: Model, feeds: Sequence[Tensors], backend: Backend
) -> Model:
    """Return the compressed model, with other statistics in its batch norms if it errs less so.

    Args:
        original: Where the compressed model comes from.
        compressed: Its values have the names that they have there.
        feeds: Calibration samples.
        backend: Where both run.
    """
    names = dict(normalised_values(inlined(original.graph)))
    if not names:
        return compressed
    before = statistics_of(original, names, feeds, backend)
    reference = outputs_of(original, feeds, backend)

    def error(model: Model) -> float:
        return largest_error(outputs_of(model, feeds, backend), reference)

    best, least, model = compressed, error(compressed), compressed
    for _ in range(_PASSES):
        after = statistics_of(model, names, feeds, backend)
        # The norms begin from the original's statistics each time, not from what was moved.
        model = compressed.with_graph(moved(compressed.graph, before, after))
        if (found := error(model)) < least:
            best, least = model, found
    return best
