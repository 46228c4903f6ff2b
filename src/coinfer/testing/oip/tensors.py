"""Tensors of the suite: made from metadata, written and read as the protocol says. Knows no server.

Written apart from what the server of this package does: a judge must not borrow from the judged.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from coinfer.testing.oip.verdict import fail

__all__ = ["DATATYPES", "ONLY_BINARY", "TensorMeta", "close", "from_raw", "random_array", "to_raw"]

Array = npt.NDArray[Any]

DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "BYTES": np.dtype("O"),
}
"""The dtype of each datatype."""

ONLY_BINARY = ("FP16", "BF16")
"""Datatypes that JSON does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorMeta:
    """What metadata says of an input or output.

    Attributes:
        name: Its name.
        datatype: Name of its element type.
        shape: Sizes of its axes; -1: any.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


def random_array(meta: TensorMeta, rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """Make an array that fits: normal floats, whole numbers and booleans 0 or 1, short texts.

    >>> meta = TensorMeta(name="x", datatype="UINT8", shape=(-1, 3))
    >>> random_array(meta, np.random.default_rng(0), (2, 3)).tolist()
    [[1, 1, 1], [0, 0, 0]]
    """
    if meta.datatype == "BYTES":
        texts = [b"text %d" % number for number in range(math.prod(shape))]
        array = np.empty(len(texts), dtype=object)
        array[:] = texts
        return array.reshape(shape)
    if meta.datatype in ("FP16", "FP32", "FP64", "BF16"):
        return rng.standard_normal(shape).astype(DATATYPES[meta.datatype])
    return rng.integers(2, size=shape).astype(DATATYPES[meta.datatype])


def to_raw(array: Array) -> bytes:
    r"""Write the elements as bytes.

    >>> to_raw(np.array([b"ab"], dtype=object))
    b'\x02\x00\x00\x00ab'
    """
    if array.dtype == object:
        return b"".join(struct.pack("<I", len(text)) + text for text in array.ravel())
    return array.tobytes()


def from_raw(name: str, datatype: str, shape: Sequence[int], data: bytes) -> Array:
    """Read the elements of an output from bytes; the case fails if they are too few or too many."""
    if datatype == "BYTES":
        return _texts(name, shape, data)
    dtype = DATATYPES[datatype]
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        fail(f"output {name!r}: {len(data)} bytes for {datatype}{list(shape)}, which is {wanted}")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _texts(name: str, shape: Sequence[int], data: bytes) -> Array:
    texts, start = [], 0
    while start < len(data):
        if start + 4 > len(data):
            fail(f"output {name!r}: its last length is cut off")
        (length,) = struct.unpack_from("<I", data, start)
        texts.append(data[start + 4 : start + 4 + length])
        start += 4 + length
    if start != len(data) or len(texts) != math.prod(shape):
        fail(f"output {name!r}: {len(texts)} texts in {len(data)} bytes for shape {list(shape)}")
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array.reshape(shape)


def close(one: Array, other: Array, tolerance: float) -> bool:
    """Tell whether two arrays are the same: floats by ||a - b|| <= tolerance ||b||, others exactly.

    >>> close(np.array([1.0, 2.0]), np.array([1.0, 2.001]), 0.01)
    True
    """
    if one.shape != other.shape:
        return False
    if one.dtype == object or np.issubdtype(one.dtype, np.integer) or one.dtype == bool:
        return bool(np.array_equal(one, other))
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return False
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    return bool(np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b))
