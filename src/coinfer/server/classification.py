"""Classification: the largest values of an output with their places, as the extension has it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from coinfer.errors import InputError

__all__ = ["classified"]


def classified(
    name: str,
    array: np.ndarray[Any, Any],
    count: object,
    *,
    is_batched: bool,
    labels: Sequence[str] = (),
) -> np.ndarray[Any, Any]:
    """Return the largest values as texts `value:place` or `value:place:label`, the largest first.

    Args:
        name: Of the output.
        array: Its values; of one request if it is batched, per row.
        count: How many are wanted.
        is_batched: Whether the first axis is the batch.
        labels: Names of the places.

    Returns:
        Texts of shape `[count]`, or `[batch, count]`.

    Raises:
        InputError: it is no output of numbers, or the count makes no sense.

    >>> classified("y", np.array([[1.0, 3.0, 2.0]]), 2, is_batched=True).tolist()
    [['3.000000:1', '2.000000:2']]
    """
    if type(count) is not int or count < 1:
        raise InputError(f"output {name!r}: 'classification' must be a whole number from 1")
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise InputError(f"output {name!r} has no numbers that could be classified")
    has_rows = is_batched and array.ndim > 0
    # A width of -1 would not be found where there are no rows.
    rows = (
        array.reshape(len(array), math.prod(array.shape[1:])) if has_rows else array.reshape(1, -1)
    )
    kept = min(count, rows.shape[1])
    found = np.empty((len(rows), kept), object)
    with np.errstate(invalid="ignore"):  # what no number is comes last
        numbers = rows.astype(np.float64)
    for at, row in enumerate(numbers):
        for place, index in enumerate(np.argsort(-row, kind="stable")[:kept]):
            label = f":{labels[index]}" if index < len(labels) else ""
            found[at, place] = f"{row[index]:f}:{index}{label}"
    return found if has_rows else found[0]
