"""Probe inputs: inputs that show what samples do not, made of a sample. Runs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from coinfer.backends.base import Tensor, Tensors

__all__ = ["large", "nonfinite"]

_STARTS: Final = (2**31 + 11, 2**24 + 1, 2**16 + 1, 4099, 1021, 251, 61, 13)
"""Beyond 32 bits; with a square beyond them; and as large as tables of a network are long."""

_LARGEST: Final = 2**62
"""No type is asked for more: numpy cannot compare unsigned 64 bits with others."""

_STRIDE: Final = 7
"""Every so many floats one is not finite: some are in each row, and most stay as they are."""


def large(sample: Tensors, names: tuple[str, ...], bounds: Mapping[str, int]) -> Iterator[Tensors]:
    """Yield a sample with large integers, the largest first.

    Args:
        sample: One sample.
        names: The inputs that become large.
        bounds: What they stay below, where that is known.

    >>> next(large({"i": np.array([1, 1, 0])}, ("i",), {}))["i"].tolist()
    [2147483659, 2147483660, 2147483661]
    >>> next(large({"i": np.array([1, 1, 0])}, ("i",), {"i": 100}))["i"].tolist()
    [92, 93, 94]
    """
    for start in _STARTS:
        yield {
            name: _raised(array, start, bounds.get(name)) if name in names else array
            for name, array in sample.items()
        }


def nonfinite(sample: Tensors) -> Iterator[Tensors]:
    """Yield a sample with some NaN, and with some inf and -inf; nothing if it holds no floats.

    >>> [feed["x"].tolist() for feed in nonfinite({"x": np.array([1.0, 2.0])})]
    [[nan, 2.0], [inf, 2.0]]
    """
    floats = {name for name, array in sample.items() if array.dtype.kind == "f" and array.size}
    for values in ((np.nan,), (np.inf, -np.inf)) if floats else ():
        yield {n: _spoiled(array, values) if n in floats else array for n, array in sample.items()}


def _raised(array: Tensor, start: int, bound: int | None) -> Tensor:
    largest = min(int(np.iinfo(array.dtype).max), _LARGEST)
    most = largest if bound is None else min(largest, bound - 1)
    values = np.minimum(np.arange(array.size) % 8 + min(start, most - 7), most)
    return np.minimum(np.maximum(values, 0), most).astype(array.dtype).reshape(array.shape)


def _spoiled(array: Tensor, values: Sequence[float]) -> Tensor:
    changed = np.array(array, copy=True, order="C")
    places = changed.reshape(-1)[::_STRIDE]
    places[:] = np.resize(values, places.shape)
    return changed
