"""Accuracy: the share of samples whose largest output is that of their class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from coinfer.errors import InputError
from coinfer.retraining.module_layers import as_arguments, evaluating

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["accuracy"]


def accuracy(module: Module, data: Iterable[Any]) -> float:
    """Return the share of right answers of a classifier, 0 to 1.

    Args:
        module: Takes the inputs of a batch and gives scores, (samples, classes, ...).
        data: Batches of (inputs, classes), e.g. a `DataLoader`.

    Raises:
        InputError: there is nothing in it, or batches have no classes.
    """
    right = count = 0
    with evaluating(module):
        device = next((each.device for each in module.parameters()), None)
        for batch in data:
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise InputError("accuracy needs batches of (inputs, classes)")
            inputs, classes = batch
            outputs = module(*(each.to(device) for each in as_arguments(inputs)))
            right += int((outputs.argmax(1) == classes.to(device)).sum())
            count += classes.numel()
    if not count:
        raise InputError("there are no samples to judge by")
    return right / count
