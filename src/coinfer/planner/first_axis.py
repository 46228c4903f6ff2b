"""First axis: whether a model has a batch in front of all that it reads and makes."""

from __future__ import annotations

from coinfer.model import Model
from coinfer.model.inputs import batch_symbol, fixed_first_axis

__all__ = ["first_axis_obstacle"]


def first_axis_obstacle(model: Model, *, fixed: bool = False) -> str:
    """Say why a model has no batch in front of all that it reads and makes; nothing if it has.

    Args:
        model: The model; it was found out whether its open first axis is the batch.
        fixed: Whether it shall run at the batch size that it has.
    """
    symbol = model.batch_symbol
    if symbol is None and (size := fixed_first_axis(model.inputs, model.outputs)):
        return (
            f"the model leaves no batch size open, and its first axis of {size} was not found to "
            "be one: a sample among others does not get what it gets among copies of itself"
        )
    if model.has_batch is False and batch_symbol(model.inputs) is not None:
        return (
            "its open first axis is no batch: two samples together do not give what they give apart"
        )
    if fixed or symbol is None:
        return "the model leaves no batch size open"
    for kind, values in (("input", model.inputs), ("output", model.outputs)):
        for value in values:
            if value.shape[:1] != (symbol,):
                return f"the first axis of {kind} {value.name!r} is not the batch"
    return ""
