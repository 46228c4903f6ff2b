"""Padded values: let requests of unequal sizes share a run, and give each what is its own.

Along the axes that the user named, inputs are padded behind to the longest of those that share the
run. Outputs are cut back where they have the same open dimension. Whether answers stay what they
are is found out while planning (`planner.padding`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coinfer.backends.values import Value, Values
from coinfer.runtime.span_io import SpanIO

__all__ = ["padded", "trimmed"]


def padded(span_io: SpanIO, values: Sequence[Values]) -> Sequence[Values]:
    """Return what several requests bring, padded so that it can be stacked."""
    found: list[dict[str, Value]] = [dict(each) for each in values]
    for name, (axes, fill) in span_io.padding.items():
        arrays = [each[name] for each in values]
        longest = {axis: max(array.shape[axis] for array in arrays) for axis in axes}  # type: ignore[union-attr]
        for each, array in zip(found, arrays, strict=True):
            assert isinstance(array, np.ndarray)  # a whole model reads what its request brings
            lacking = [(0, longest.get(axis, size) - size) for axis, size in enumerate(array.shape)]
            if any(behind for _, behind in lacking):
                each[name] = np.pad(array, lacking, constant_values=np.asarray(fill, array.dtype))
    return found


def trimmed(span_io: SpanIO, own: Values, made: Values) -> dict[str, Value]:
    """Return what was made for a request without what is there because of the padding.

    Args:
        span_io: The span.
        own: What the request brought.
        made: Its part of what the run made.
    """
    found = dict(made)
    for name, axes in span_io.trimming.items():
        value = found[name]
        assert isinstance(value, np.ndarray)
        cuts = [slice(None)] * value.ndim
        for axis, (of, place) in axes.items():
            cuts[axis] = slice(own[of].shape[place])  # type: ignore[union-attr]
        found[name] = value[tuple(cuts)]
    return found
