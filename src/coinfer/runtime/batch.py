"""Stack the inputs of several requests into one execution and split its outputs again."""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np

from coinfer.backends.base import Tensor, Tensors

__all__ = ["split", "stack"]


def stack(feeds: Sequence[Tensors], batched: Container[str]) -> Tensors:
    """Concatenate the inputs that have a batch axis along it.

    Raises:
        ValueError: another input differs between the requests, so one run cannot serve them.
    """
    stacked = {}
    for name, first in feeds[0].items():
        if name in batched:
            stacked[name] = np.concatenate([feed[name] for feed in feeds])
        elif all(np.array_equal(first, feed[name]) for feed in feeds[1:]):
            stacked[name] = first
        else:
            raise ValueError(f"input {name!r} has no batch axis and differs between the requests")
    return stacked


def split(outputs: dict[str, Tensor], sizes: Sequence[int]) -> list[dict[str, Tensor]]:
    """Cut the outputs along the first axis into parts of the given sizes.

    Raises:
        ValueError: an output's first axis is not the batch, so it cannot be told whose it is.
    """
    if len(sizes) == 1:
        return [outputs]
    total = sum(sizes)
    for name, value in outputs.items():
        if value.ndim == 0 or value.shape[0] != total:
            raise ValueError(f"output {name!r} of shape {value.shape} has no batch of {total}")
    cuts = np.cumsum(sizes)[:-1]
    parts = {name: np.split(value, cuts) for name, value in outputs.items()}
    return [{name: parts[name][i] for name in parts} for i in range(len(sizes))]
