"""Stack the inputs of several requests into one execution and split its outputs again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coinfer.backends.base import Tensor, Tensors

__all__ = ["split", "stack"]


def stack(feeds: Sequence[Tensors]) -> Tensors:
    """Concatenate along the first axis; a single feed is passed on as it is."""
    if len(feeds) == 1:
        return feeds[0]
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


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
