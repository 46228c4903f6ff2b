"""Items: what a stage with `each` is done for, one by one, and its results as one value again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coinfer.errors import ExecutionError
from coinfer.model.specs import TensorSpec

__all__ = ["items_of", "no_items", "stacked"]


def items_of(value: Any, source: str) -> list[Any]:
    """Return the items of a value: along the first axis of an array, or those of a list.

    Raises:
        ExecutionError: it has none.

    >>> [item.shape for item in items_of(np.zeros((2, 3)), "crops")]
    [(3,), (3,)]
    """
    if isinstance(value, np.ndarray):
        if value.ndim:
            return [value[at, ...] for at in range(len(value))]
        raise ExecutionError(f"{source} is an array without axes, so it has no items")
    if isinstance(value, list | tuple):
        return list(value)
    kind = type(value).__name__
    raise ExecutionError(f"{source} is a {kind}; items are those of an array or a list")


def stacked(name: str, results: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Return the results of all items, one behind the other on a new first axis.

    Raises:
        ExecutionError: they differ in their shapes.
    """
    try:
        return np.stack(results)
    except ValueError:
        shapes = sorted({str(list(np.shape(result))) for result in results})
        raise ExecutionError(
            f"output {name!r} differs in its shape from item to item ({', '.join(shapes)}), so it "
            "cannot become one array"
        ) from None


def no_items(spec: TensorSpec) -> np.ndarray[Any, Any]:
    """Return what no items give: an array of none, of the right type and shape.

    Args:
        spec: Of the results of all items: the first axis is theirs.

    Raises:
        ExecutionError: the shape of one result is not known.
    """
    sizes = spec.shape[1:]
    known = [size for size in sizes if isinstance(size, int)]
    if not spec.rank_known or len(known) < len(sizes):
        raise ExecutionError(
            f"there are no items, and of output {spec.name!r} only {spec.shape_text} is known, so "
            "there is no empty array of its shape; fix these sizes in the model, or give at least "
            "one item"
        )
    return np.empty((0, *known), spec.dtype)
