"""Infer body: the request for an inference as HTTP carries it: JSON, then binary tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from coinfer.errors import InputError, NotOfferedError, TooLargeError
from coinfer.server.http.json_tensors import from_json
from coinfer.server.limits import ServerLimits
from coinfer.server.raw_tensors import Buffer, checked_shape, from_raw
from coinfer.server.request import NO_PARAMETERS, InferRequest, InputTensor, Parameters, Wanted
from coinfer.server.shared_memory import SharedMemory

__all__ = ["parse_infer"]

_MOST_NAME = 1024


def parse_infer(
    model: str,
    version: str,
    body: Buffer,
    header_length: int | None,
    limits: ServerLimits,
    memory: SharedMemory | None = None,
) -> InferRequest:
    """Read a request for an inference.

    Args:
        model: Named by the path.
        version: Named by the path; empty: none is.
        body: All bytes, unpacked.
        header_length: Those of them that are JSON; None: all.
        limits: How many tensors are taken.
        memory: Where inputs in shared memory are; None: it is not offered.

    Raises:
        InputError: it is not what the protocol says.
        TooLargeError: it has too many tensors or dimensions, or too much JSON.

    >>> body = b'{"inputs":[{"name":"x","datatype":"UINT8","shape":[2],"data":[1,2]}]}'
    >>> parse_infer("m", "", body, None, ServerLimits()).inputs[0].array
    array([1, 2], dtype=uint8)
    """
    view = memoryview(body)
    if header_length is not None and header_length > len(view):
        raise InputError(
            f"Inference-Header-Content-Length is {header_length}, and the body has only "
            f"{len(view)} bytes"
        )
    text = view[:header_length]
    if len(text) > limits.json_bytes:
        raise TooLargeError(
            f"the request has {len(text)} bytes of JSON; at most {limits.json_bytes} are taken; "
            "send the tensors as binary data"
        )
    head = _object(text, "the request")
    rest = _Rest(view[header_length:] if header_length is not None else view[:0])
    inputs = _list(head, "inputs", limits)
    if not inputs:
        raise InputError("the request has no 'inputs'")
    tensors = [_input(each, rest, memory) for each in inputs]
    if rest.left:
        raise InputError(f"{rest.left} bytes of the body belong to no tensor")
    parameters = _parameters(head)
    outputs = [_wanted(each) for each in _list(head, "outputs", limits)]
    identity = head.get("id", "")
    if not isinstance(identity, str):
        raise InputError("'id' must be a text")
    return InferRequest(model, tensors, version, identity, parameters, outputs)


class _Rest:
    """The binary data that are not read yet."""

    __slots__ = ("_at", "_view")

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._view) - self._at

    def take(self, name: str, size: object) -> memoryview:
        if type(size) is not int or size < 0:
            raise InputError(f"input {name!r}: 'binary_data_size' must be a number from 0")
        if size > self.left:
            raise InputError(
                f"input {name!r}: {size} bytes of binary data, and only {self.left} are left; is "
                "Inference-Header-Content-Length right?"
            )
        self._at += size
        return self._view[self._at - size : self._at]


def _input(each: object, rest: _Rest, memory: SharedMemory | None) -> InputTensor:
    tensor = _named(each, "input")
    name, datatype = tensor["name"], tensor.get("datatype")
    shape = checked_shape(name, tensor.get("shape"))
    parameters = _parameters(tensor)
    if "binary_data_size" in parameters:
        data = rest.take(name, parameters["binary_data_size"])
        array = from_raw(name, datatype, shape, data)
    elif "shared_memory_region" in parameters:
        if memory is None:
            raise NotOfferedError("shared memory is not offered; send the tensors")
        array = memory.read(name, str(datatype), shape, parameters)
    elif "data" in tensor:
        array = from_json(name, datatype, shape, tensor["data"])
    else:
        raise InputError(f"input {name!r} has neither 'data' nor 'binary_data_size'")
    return InputTensor(name, str(datatype), array)


def _wanted(each: object) -> Wanted:
    output = _named(each, "output")
    return Wanted(output["name"], _parameters(output))


def _named(each: object, what: str) -> Mapping[str, Any]:
    if not isinstance(each, dict):
        raise InputError(f"each {what} must be an object with a 'name'")
    name = each.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= _MOST_NAME:
        raise InputError(f"each {what} needs a 'name' of at most {_MOST_NAME} characters")
    return each


def _parameters(of: Mapping[str, Any]) -> Parameters:
    found = of.get("parameters")
    if not found:
        return NO_PARAMETERS
    if not isinstance(found, dict):
        raise InputError("'parameters' must be an object")
    return found


def _list(head: Mapping[str, Any], name: str, limits: ServerLimits) -> list[Any]:
    found = head.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise InputError(f"{name!r} must be a list")
    if len(found) > limits.tensors:
        raise TooLargeError(f"{len(found)} {name}; a request has at most {limits.tensors}")
    return found


def _object(data: memoryview, what: str) -> Mapping[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{what} is not JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise InputError(f"{what} must be a JSON object")
    return found
