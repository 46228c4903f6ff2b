"""Datatypes: what the Open Inference Protocol calls the dtypes of numpy. Knows no tensor."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from coinfer.errors import ConfigurationError, InputError

__all__ = ["BYTES", "DTYPES", "datatype_of", "dtype_of", "item_bytes"]

BYTES = "BYTES"
"""Texts of any length. ONNX calls them strings, and an array of them has dtype `object`."""

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    BYTES: np.dtype(object),
}
"""The numpy dtype of each datatype, in the byte order of the wire."""

_DATATYPES = {dtype: name for name, dtype in DTYPES.items()}


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Return the protocol's name of a dtype.

    Raises:
        ConfigurationError: the protocol has none.

    >>> datatype_of(np.dtype("float32")), datatype_of(np.dtype("O"))
    ('FP32', 'BYTES')
    """
    found = _DATATYPES.get(dtype)
    if found is None:
        raise ConfigurationError(
            f"the Open Inference Protocol has no datatype for {dtype}; cast it in the model"
        )
    return found


def dtype_of(datatype: object) -> np.dtype[Any]:
    """Return the dtype of a datatype that a client names.

    Raises:
        InputError: there is no such datatype.

    >>> dtype_of("INT64")
    dtype('int64')
    """
    found = DTYPES.get(datatype) if isinstance(datatype, str) else None
    if found is None:
        text = repr(datatype)[:80]
        raise InputError(f"unknown datatype {text}; it is one of {', '.join(DTYPES)}")
    return found


def item_bytes(datatype: str) -> int | None:
    """Return the bytes of one element on the wire; None where they vary.

    >>> item_bytes("FP16"), item_bytes("BYTES")
    (2, None)
    """
    return None if datatype == BYTES else DTYPES[datatype].itemsize
