"""Infer answer: the answer to an inference as gRPC carries it, its tensors copied once."""

from __future__ import annotations

from typing import Any

from coinfer.server.messages import INFERENCE
from coinfer.server.raw_tensors import Buffer, to_raw
from coinfer.server.request import InferResponse, Parameters

__all__ = ["raw_head", "stream_answer", "stream_error", "write_head", "write_infer"]

_RAW_TAG = b"\x32"  # field 6, with a length
_ANSWER_TAG = b"\x12"  # field 2, with a length
_RESPONSE = INFERENCE["ModelInferResponse"]
_STREAMED = INFERENCE["ModelStreamInferResponse"]


def write_infer(response: InferResponse, *, is_final: bool = False) -> bytes:
    r"""Write an answer as a serialized `ModelInferResponse`; its outputs are raw.

    Args:
        response: The answer.
        is_final: Say so in the parameters, as a client of streams may ask for.

    >>> import numpy as np
    >>> from coinfer.server.request import OutputTensor
    >>> y = OutputTensor("y", "INT16", (2,), np.array([1, 2], np.int16))
    >>> message = _RESPONSE.FromString(write_infer(InferResponse("m", "1", "7", [y])))
    >>> message.id, message.outputs[0].name, message.raw_output_contents[0]
    ('7', 'y', b'\x01\x00\x02\x00')
    """
    head = write_head(response, is_final=is_final)
    parts: list[Buffer] = [head]
    for output in response.outputs:
        # Where an output is in shared memory its raw contents are empty: one for each output.
        raw = b"" if output.array is None else to_raw(output.array)
        parts += (raw_head(len(raw)), raw)
    return b"".join(parts)


def write_head(response: InferResponse, *, is_final: bool = False) -> bytes:
    """Write all of an answer but the contents of its outputs, which come after it."""
    name, version, number, outputs, parameters = response
    head = _RESPONSE(model_name=name, model_version=version, id=number)
    if parameters:
        _set(head.parameters, parameters)
    if is_final:
        head.parameters["triton_final_response"].bool_param = True
    for output in outputs:
        said = head.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        if output.parameters:
            _set(said.parameters, output.parameters)
    return bytes(head.SerializeToString())


def raw_head(n_bytes: int) -> bytes:
    """Write what goes before the contents of an output."""
    return _RAW_TAG + _varint(n_bytes)


def stream_answer(answer: bytes) -> bytes:
    """Wrap an answer as a serialized `ModelStreamInferResponse`."""
    return b"".join((_ANSWER_TAG, _varint(len(answer)), answer))


def stream_error(text: str, number: str) -> bytes:
    """Write an error as a serialized `ModelStreamInferResponse`.

    >>> message = _STREAMED.FromString(stream_error("no such model", "7"))
    >>> message.error_message, message.infer_response.id
    ('no such model', '7')
    """
    message = _STREAMED(error_message=text)
    if number:
        message.infer_response.id = number
    return bytes(message.SerializeToString())


def _varint(number: int) -> bytes:
    if number < 128:
        return bytes((number,))
    found = bytearray()
    while number >= 128:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def _set(parameters: Any, values: Parameters) -> None:
    for name, value in values.items():
        match value:
            case bool():
                parameters[name].bool_param = value
            case int():
                parameters[name].int64_param = value
            case float():
                parameters[name].double_param = value
            case _:
                parameters[name].string_param = value
