"""Raw tensors: arrays to and from the little-endian bytes of the protocol. Copies nothing needless.

An array that was read is a view of the buffer it came in. Every size is checked before it is used.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from coinfer.errors import InputError, TooLargeError
from coinfer.model.datatypes import BYTES, dtype_of

__all__ = ["MOST_DIMENSIONS", "Buffer", "check_count", "checked_shape", "from_raw", "to_raw"]

Buffer = bytes | bytearray | memoryview

MOST_DIMENSIONS = 32
"""Axes of one tensor. ONNX Runtime and numpy take no more than 64."""

_MOST_ELEMENTS = 2**40
_MOST_TEXTS = 2**18
_LENGTH = struct.Struct("<I")


def checked_shape(name: str, shape: object) -> tuple[int, ...]:
    """Return a shape that a client sent.

    Raises:
        InputError: it is no list of whole numbers from 0.
        TooLargeError: it has too many axes or elements.

    >>> checked_shape("x", [2, 3])
    (2, 3)
    """
    if not isinstance(shape, Sequence) or isinstance(shape, str | bytes):
        raise InputError(f"tensor {name!r}: its shape must be a list of sizes")
    if len(shape) > MOST_DIMENSIONS:
        raise TooLargeError(
            f"tensor {name!r} has {len(shape)} dimensions; at most {MOST_DIMENSIONS} are taken"
        )
    for size in shape:
        if type(size) is not int or size < 0:
            raise InputError(f"tensor {name!r}: each size of its shape must be a number from 0")
    sizes = tuple(shape)
    # Of a shape with a 0, too: the product of the others must not overflow anywhere.
    if math.prod(size or 1 for size in sizes) > _MOST_ELEMENTS:
        raise TooLargeError(f"tensor {name!r}: a shape of {list(sizes)} is too large")
    return sizes


def check_count(name: str, count: int) -> None:
    """See that a tensor has not too many texts: each is read apart, while others wait.

    Raises:
        TooLargeError: it has.
    """
    if count > _MOST_TEXTS:
        raise TooLargeError(
            f"tensor {name!r} has {count} texts; a tensor has at most {_MOST_TEXTS}"
        )


def from_raw(
    name: str, datatype: object, shape: tuple[int, ...], data: Buffer
) -> np.ndarray[Any, Any]:
    """Read an array from its bytes: a view of them if they are aligned, else one copy.

    Args:
        name: Of the tensor, for messages.
        datatype: The protocol's name of the element type.
        shape: As `checked_shape` returns it.
        data: Exactly the bytes of the tensor.

    Raises:
        InputError: an unknown datatype, or the number of bytes does not fit the shape.
        TooLargeError: there are too many texts.

    >>> from_raw("x", "INT16", (2,), bytes([1, 0, 2, 0]))
    array([1, 2], dtype=int16)
    """
    dtype = dtype_of(datatype)
    if datatype == BYTES:
        return _texts(name, shape, data)
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise InputError(
            f"tensor {name!r}: {len(data)} bytes of data, but {datatype} of shape "
            f"{list(shape)} takes {wanted}"
        )
    array = np.frombuffer(data, np.uint8).view(dtype) if wanted else np.empty(0, dtype)
    if datatype == "BOOL" and wanted and np.frombuffer(data, np.uint8).max() > 1:
        raise InputError(f"tensor {name!r}: each byte of a BOOL must be 0 or 1")
    if not array.flags.aligned:
        array = array.copy()
    return array.reshape(shape)


def to_raw(array: np.ndarray[Any, Any]) -> Buffer:
    r"""Return the bytes of an array: without a copy where it is contiguous, and not of texts.

    >>> bytes(to_raw(np.array(["a", "bc"], object)))
    b'\x01\x00\x00\x00a\x02\x00\x00\x00bc'
    """
    if array.dtype == object or array.dtype.kind in "US":
        parts: list[bytes] = []
        for text in array.ravel().tolist():
            data = text if isinstance(text, bytes) else str(text).encode(errors="surrogateescape")
            parts += (_LENGTH.pack(len(data)), data)
        return b"".join(parts)
    if array.dtype.byteorder == ">" or not array.flags.c_contiguous:
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    if array.size == 0:
        return b""
    return array.reshape(-1).view(np.uint8).data


def _texts(name: str, shape: tuple[int, ...], data: Buffer) -> np.ndarray[Any, Any]:
    """Read texts, each with its length before it."""
    count, view = math.prod(shape), memoryview(data)
    check_count(name, count)
    if count * _LENGTH.size > len(view):
        raise InputError(
            f"tensor {name!r}: {len(view)} bytes cannot hold {count} texts with their lengths"
        )
    found = np.empty(count, object)
    at = 0
    for index in range(count):
        if at + _LENGTH.size > len(view):
            raise InputError(f"tensor {name!r}: its bytes end before text {index} of {count}")
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        if length > len(view) - at:
            raise InputError(
                f"tensor {name!r}: text {index} has {length} bytes, and only {len(view) - at} are "
                "left"
            )
        try:
            # ONNX Runtime takes texts, and of bytes their Python notation.
            found[index] = str(view[at : at + length], "utf-8")
        except UnicodeDecodeError:
            raise InputError(f"tensor {name!r}: text {index} is not UTF-8") from None
        at += length
    if at != len(view):
        raise InputError(f"tensor {name!r}: {len(view) - at} bytes are left after {count} texts")
    return found.reshape(shape)
