"""Infer message: a request for inference as gRPC carries it, read without copying its tensors.

`raw_input_contents` are views of the message as it came. Everything else is small, and protobuf
reads it from what is left of the message without them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from coinfer.errors import InputError, TooLargeError
from coinfer.model.datatypes import BYTES, DTYPES, dtype_of
from coinfer.server.limits import ServerLimits
from coinfer.server.messages import INFERENCE
from coinfer.server.raw_tensors import check_count, checked_shape, from_raw
from coinfer.server.request import NO_PARAMETERS, InferRequest, InputTensor, Parameters, Wanted
from coinfer.server.shared_memory import SharedMemory

__all__ = ["parse_infer", "parse_rest", "split_raw"]

_RAW_FIELD = 7
_FIELDS_PER_TENSOR = 4
"""Of a request, at most: an input, its raw contents, an output, and a parameter."""

_MOST_PARAMETERS = 256
_VARINT, _FIXED_64, _DELIMITED, _FIXED_32 = 0, 1, 2, 5
_MESSAGE = INFERENCE["ModelInferRequest"]
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""Where the elements of a datatype are, if they are typed."""


def parse_infer(data: bytes, limits: ServerLimits, memory: SharedMemory | None) -> InferRequest:
    """Read a request.

    Args:
        data: A serialized `ModelInferRequest`. The arrays of the request are views of it.
        limits: What a request may have.
        memory: Where inputs in shared memory are; None: that is not offered.

    Raises:
        InputError: it is no such message, or contradicts itself.
        TooLargeError: it has too many tensors.
        UnknownNameError: a region of shared memory is not registered.

    >>> message = INFERENCE["ModelInferRequest"](model_name="m", id="7")
    >>> _ = message.inputs.add(name="x", datatype="INT16", shape=[2])
    >>> message.raw_input_contents.append(bytes([1, 0, 2, 0]))
    >>> request = parse_infer(message.SerializeToString(), ServerLimits(), None)
    >>> request.model, request.inputs[0].array
    ('m', array([1, 2], dtype=int16))
    """
    return parse_rest(*split_raw(data, limits), limits, memory)


def parse_rest(
    head: bytes, raw: Sequence[memoryview], limits: ServerLimits, memory: SharedMemory | None
) -> InferRequest:
    """Read a request that was split by `split_raw`.

    Raises:
        CoinferError: as of `parse_infer`.
    """
    try:
        message = _MESSAGE.FromString(head)
    except Exception as error:
        raise InputError("the request is no ModelInferRequest") from error
    if len(message.inputs) > limits.tensors or len(message.outputs) > limits.tensors:
        raise TooLargeError(f"a request has at most {limits.tensors} inputs and as many outputs")
    return InferRequest(
        message.model_name,
        _inputs(message.inputs, raw, memory),
        message.model_version,
        message.id,
        _parameters(message.parameters) if message.parameters else NO_PARAMETERS,
        [
            Wanted(each.name, _parameters(each.parameters) if each.parameters else NO_PARAMETERS)
            for each in message.outputs
        ],
    )


def split_raw(data: bytes, limits: ServerLimits) -> tuple[bytes, list[memoryview]]:
    """Take the raw contents out of a message; return the rest of it, and views of them.

    Raises:
        InputError: the bytes are no message.
        TooLargeError: it has more fields than so many tensors take.
    """
    most = _FIELDS_PER_TENSOR * limits.tensors
    view, end, at, kept = memoryview(data), len(data), 0, 0
    parts: list[memoryview] = []
    raw: list[memoryview] = []
    n_fields = 0
    while at < end:
        start = at
        n_fields += 1
        if n_fields > most:
            raise TooLargeError(f"the request has more than {most} fields; send fewer tensors")
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _DELIMITED:
            size, at = _varint(data, at)
            if size > end - at:
                raise InputError("the request is no ModelInferRequest: it ends too early")
            if tag >> 3 == _RAW_FIELD:
                parts.append(view[kept:start])
                raw.append(view[at : at + size])
                kept = at + size
            at += size
        elif kind == _VARINT:
            _, at = _varint(data, at)
        elif kind in (_FIXED_32, _FIXED_64):
            at += 4 if kind == _FIXED_32 else 8
        else:
            raise InputError("the request is no ModelInferRequest")
    if not raw:
        return data, raw
    parts.append(view[kept:])
    return b"".join(parts), raw


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number; return it and where it ends."""
    try:
        byte = data[at]
        if byte < 128:
            return byte, at + 1
        number, shift = byte & 127, 7
        while True:
            at += 1
            byte = data[at]
            number |= (byte & 127) << shift
            if byte < 128:
                return number, at + 1
            shift += 7
            if shift > 63:
                raise InputError("the request is no ModelInferRequest: a number does not end")
    except IndexError:
        raise InputError("the request is no ModelInferRequest: it ends too early") from None


def _inputs(
    tensors: Iterable[Any], raw: Sequence[memoryview], memory: SharedMemory | None
) -> list[InputTensor]:
    found: list[InputTensor] = []
    number = 0
    for tensor in tensors:
        name, datatype = tensor.name, tensor.datatype
        dtype_of(datatype)
        shape = checked_shape(name, tensor.shape)
        # Some clients send an empty message beside raw contents: nothing is in it.
        is_typed = tensor.HasField("contents") and bool(tensor.contents.ListFields())
        if is_typed and raw:
            raise InputError(
                f"input {name!r} has typed contents beside raw_input_contents; send all inputs one "
                "way"
            )
        if "shared_memory_region" in tensor.parameters:
            if memory is None:
                raise InputError(f"input {name!r}: shared memory is not offered here")
            array = memory.read(name, datatype, shape, _parameters(tensor.parameters))
        elif is_typed or not raw:
            array = _typed(name, datatype, shape, tensor.contents)
        elif number == len(raw):
            raise InputError(f"raw_input_contents has {len(raw)} entries, too few for the inputs")
        else:
            array = from_raw(name, datatype, shape, raw[number])
            number += 1
        found.append(InputTensor(name, datatype, array))
    if number < len(raw):
        raise InputError(f"raw_input_contents has {len(raw)} entries, and {number} inputs take one")
    return found


def _typed(name: str, datatype: str, shape: tuple[int, ...], contents: Any) -> np.ndarray[Any, Any]:
    """Read typed contents.

    Raises:
        InputError: they are of another type, too many or too few, or out of range.
    """
    field = _CONTENTS.get(datatype)
    if field is None:
        raise InputError(f"input {name!r}: {datatype} has no typed contents; send it raw")
    others = [known.name for known, _ in contents.ListFields() if known.name != field]
    if others:
        raise InputError(f"input {name!r}: {datatype} is in {field}, not in {others[0]}")
    values = getattr(contents, field)
    if len(values) != math.prod(shape):
        raise InputError(
            f"input {name!r}: {field} has {len(values)} elements, shape {list(shape)} takes "
            f"{math.prod(shape)}"
        )
    if datatype == BYTES:
        check_count(name, len(values))
        array = np.empty(len(values), object)
        array[:] = [_text(name, each) for each in values]
        return array.reshape(shape)
    dtype = DTYPES[datatype]
    if dtype.itemsize < 4 and dtype.kind in "iu":
        wide = np.fromiter(values, np.int64, len(values))
        info = np.iinfo(dtype)
        if len(wide) and (wide.min() < info.min or wide.max() > info.max):
            raise InputError(f"input {name!r}: {field} has numbers that are no {datatype}")
        return wide.astype(dtype).reshape(shape)
    return np.fromiter(values, dtype, len(values)).reshape(shape)


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InputError(f"input {name!r}: a text is not UTF-8") from None


def _parameters(said: Mapping[str, Any]) -> Parameters:
    if len(said) > _MOST_PARAMETERS:
        raise TooLargeError(f"{len(said)} parameters; at most {_MOST_PARAMETERS} are taken")
    found: dict[str, bool | int | float | str] = {}
    for name, value in said.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is None:
            raise InputError(f"parameter {name[:80]!r} has no value")
        found[name] = getattr(value, choice)
    return found
