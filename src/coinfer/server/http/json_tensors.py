"""JSON tensors: the elements of a tensor as numbers and texts in JSON, flat or nested."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy as np

from coinfer.errors import InputError
from coinfer.model.datatypes import BYTES, dtype_of
from coinfer.server.raw_tensors import MOST_DIMENSIONS, check_count

__all__ = ["from_json", "to_json"]

_BINARY_ONLY = ("FP16", "BF16")
_KINDS: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}, "O": {str}}
"""By kind of the wanted dtype: the types that its elements may have in JSON."""


def from_json(name: str, datatype: object, shape: tuple[int, ...], data: object) -> Any:
    """Make the array of a tensor's `data`.

    Args:
        name: Of the tensor, for messages.
        datatype: The protocol's name of the element type.
        shape: As `checked_shape` returns it.
        data: Elements in row-major order, flat or nested.

    Raises:
        InputError: they do not fit the datatype or the shape.
        TooLargeError: there are too many texts.

    >>> from_json("x", "FP32", (2, 2), [1, 2, 3, 4.5])
    array([[1. , 2. ],
           [3. , 4.5]], dtype=float32)
    """
    dtype = dtype_of(datatype)
    if datatype in _BINARY_ONLY:
        raise InputError(f"tensor {name!r}: {datatype} has no form in JSON; send it as binary data")
    if not isinstance(data, list):
        raise InputError(f"tensor {name!r}: 'data' must be a list")
    values, kinds = _flat(name, data)
    # Before numpy sees them: it pads texts to the length of the longest.
    if not kinds <= _KINDS[dtype.kind]:
        what = "texts" if datatype == BYTES else datatype
        raise InputError(f"tensor {name!r}: its data are not {what}")
    if datatype == BYTES:
        check_count(name, len(values))
        found = np.empty(len(values), object)
        found[:] = values
    else:
        found = _numbers(name, str(datatype), dtype, values)
    if found.size != math.prod(shape):
        raise InputError(
            f"tensor {name!r}: {found.size} elements, but shape {list(shape)} has "
            f"{math.prod(shape)}"
        )
    return found.reshape(shape)


def to_json(name: str, datatype: str, array: np.ndarray[Any, Any]) -> Any:
    """Return the elements of an output as `orjson` writes them, flat.

    Raises:
        InputError: the datatype has no form in JSON.
    """
    if datatype in _BINARY_ONLY:
        raise InputError(
            f"output {name!r}: {datatype} has no form in JSON; ask for it with 'binary_data': true"
        )
    if datatype == BYTES:
        return [
            each.decode(errors="replace") if isinstance(each, bytes) else str(each)
            for each in array.ravel().tolist()
        ]
    return np.ascontiguousarray(array).reshape(-1)


def _flat(name: str, data: list[Any]) -> tuple[list[Any], set[type]]:
    """Return the elements of lists, which are equally long at each depth, and their types."""
    for _ in range(MOST_DIMENSIONS):
        kinds = set(map(type, data))
        if list not in kinds:
            return data, kinds
        if len(kinds) > 1 or len(set(map(len, data))) > 1:
            break
        data = list(chain.from_iterable(data))
    raise InputError(f"tensor {name!r}: its lists differ in length or depth")


def _numbers(
    name: str, datatype: str, dtype: np.dtype[Any], values: list[Any]
) -> np.ndarray[Any, Any]:
    if values and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if min(values) < limits.min or max(values) > limits.max:
            raise InputError(f"tensor {name!r}: its data are beyond {datatype}")
    with np.errstate(over="ignore"):
        return np.array(values, dtype)
