"""Infer answer: the answer to an inference as HTTP carries it: JSON, then binary tensors."""

from __future__ import annotations

from typing import Any

import orjson

from coinfer.server.http.json_tensors import to_json
from coinfer.server.http.reply import Headers, Reply
from coinfer.server.raw_tensors import Buffer, to_raw
from coinfer.server.request import InferRequest, InferResponse

__all__ = ["write_infer"]

_BINARY = (b"content-type", b"application/octet-stream")
_JSON = (b"content-type", b"application/json")


def write_infer(request: InferRequest, response: InferResponse, headers: Headers = ()) -> Reply:
    """Write an answer; each output is binary or JSON as the request wants it.

    Raises:
        InputError: an output is wanted in JSON that has no form there.
    """
    by_default = request.parameters.get("binary_data_output") is True
    is_binary = {
        wanted.name: wanted.parameters.get("binary_data", by_default) is True
        for wanted in request.outputs
    }
    outputs: list[dict[str, Any]] = []
    parts: list[Buffer] = [b""]
    for name, datatype, shape, array, parameters in response.outputs:
        said: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        if parameters:
            said["parameters"] = dict(parameters)
        if array is not None:
            if is_binary.get(name, by_default):
                raw = to_raw(array)
                said["parameters"] = {**parameters, "binary_data_size": len(raw)}
                parts.append(raw)
            else:
                said["data"] = to_json(name, datatype, array)
        outputs.append(said)
    head: dict[str, Any] = {
        "model_name": response.model,
        "model_version": response.version,
        "outputs": outputs,
    }
    if response.id:
        head["id"] = response.id
    if response.parameters:
        head["parameters"] = dict(response.parameters)
    parts[0] = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    if len(parts) == 1:
        return Reply(200, (_JSON, *headers), parts)
    length = (b"inference-header-content-length", str(len(parts[0])).encode())
    return Reply(200, (_BINARY, length, *headers), parts)
