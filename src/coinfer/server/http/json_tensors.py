"""JSON tensors: the elements of a tensor as numbers and texts in JSON, flat or nested."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from coinfer.errors import InputError
from coinfer.server.datatypes import BYTES, dtype_of

__all__ = ["from_json", "to_json"]

_BINARY_ONLY = ("FP16", "BF16")
_TYPES: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}
"""By kind of the wanted dtype: what JSON may have."""


def from_json(name: str, datatype: object, shape: tuple[int, ...], data: object) -> Any:
    """Make the array of a tensor's `data`.

    Args:
        name: Of the tensor, for messages.
        datatype: The protocol's name of the element type.
        shape: As `checked_shape` returns it.
        data: Elements in row-major order, flat or nested.

    Raises:
        InputError: they do not fit the datatype or the shape.

    >>> from_json("x", "FP32", (2, 2), [1, 2, 3, 4.5])
    array([[1. , 2. ],
           [3. , 4.5]], dtype=float32)
    """
    dtype = dtype_of(datatype)
    if datatype in _BINARY_ONLY:
        raise InputError(f"tensor {name!r}: {datatype} has no form in JSON; send it as binary data")
    if not isinstance(data, list):
        raise InputError(f"tensor {name!r}: 'data' must be a list")
    found = _texts(name, data) if datatype == BYTES else _numbers(name, datatype, dtype, data)
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


def _numbers(
    name: str, datatype: object, dtype: np.dtype[Any], data: list[Any]
) -> np.ndarray[Any, Any]:
    """Read numbers. Numpy must not guess types: of one long text it makes as many long ones."""
    flat = data
    if data and isinstance(data[0], list):
        flat = np.array(data, object).ravel().tolist()  # ragged ones leave lists, found below
    if not set(map(type, flat)) <= _TYPES[dtype.kind]:
        raise InputError(f"tensor {name!r}: its data are not {datatype}, or lists differ in length")
    if dtype.kind in "iu" and flat:
        limits = np.iinfo(dtype)
        if min(flat) < limits.min or max(flat) > limits.max:
            raise InputError(f"tensor {name!r}: its data are beyond {datatype}")
    try:
        with np.errstate(over="ignore"):
            return np.array(flat, dtype)
    except OverflowError:
        raise InputError(f"tensor {name!r}: its data are beyond {datatype}") from None


def _texts(name: str, data: list[Any]) -> np.ndarray[Any, Any]:
    """Flatten nested lists of texts, without recursion."""
    found: list[str] = []
    left = [iter(data)]
    while left:
        each = next(left[-1], left)
        if each is left:
            left.pop()
        elif isinstance(each, list):
            left.append(iter(each))
        elif isinstance(each, str):
            found.append(each)
        else:
            raise InputError(f"tensor {name!r}: its data are not texts")
    array = np.empty(len(found), object)
    array[:] = found
    return array
