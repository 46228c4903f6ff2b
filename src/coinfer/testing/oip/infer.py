"""Infer: writes requests for inference over HTTP and reads the answers, strictly."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coinfer.testing.oip.http_client import Answer
from coinfer.testing.oip.target import Target
from coinfer.testing.oip.tensors import DATATYPES, ONLY_BINARY, Array, close, from_raw, to_raw
from coinfer.testing.oip.verdict import expect, fail, not_offered

__all__ = [
    "HEADER",
    "Body",
    "Infer",
    "Inferred",
    "expect_reference",
    "infer",
    "read_answer",
    "reference",
]

HEADER = "Inference-Header-Content-Length"
"""The header that says where the JSON of a body ends."""


@dataclass(slots=True, kw_only=True)
class Body:
    """The parts of a request, to be changed before they are sent.

    Attributes:
        head: The JSON.
        tail: The bytes after it.
        headers: Sent with it.
    """

    head: dict[str, Any]
    tail: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, target: Target, path: str | None = None) -> Answer:
        """Send it to the model."""
        path = path or f"{target.path}/infer"
        text = json.dumps(self.head).encode()
        if not self.tail:
            return target.http.post(path, self.head, self.headers)
        headers = {"Content-Type": "application/octet-stream", HEADER: str(len(text))}
        return target.http.post(path, text + self.tail, {**headers, **self.headers})


@dataclass(frozen=True, slots=True, kw_only=True)
class Infer:
    """How a request is written.

    Attributes:
        binary: Which inputs are sent as bytes; None: all, or none if the server does not offer
            binary tensors. Then it is not asked for binary outputs either.
        nested: Whether JSON has the axes as nested lists.
        outputs: The outputs that are asked for, with their parameters; None: not said.
        parameters: Of the request.
        id: Of the request.
    """

    binary: Collection[str] | None = ()
    nested: bool = False
    outputs: Mapping[str, Mapping[str, Any]] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None

    def body(self, target: Target, arrays: Mapping[str, Array] | None = None) -> Body:
        """Write the request."""
        datatypes = target.datatypes()
        has_binary = target.offers("binary_tensor_data")
        inputs, tail = [], b""
        for name, array in (target.arrays() if arrays is None else arrays).items():
            said: dict[str, Any] = {
                "name": name,
                "shape": list(array.shape),
                "datatype": datatypes[name],
            }
            if (self.binary is None and has_binary) or name in (self.binary or ()):
                raw = to_raw(array)
                said["parameters"] = {"binary_data_size": len(raw)}
                tail += raw
            elif datatypes[name] in ONLY_BINARY:
                not_offered(f"JSON has no {datatypes[name]}, the datatype of {name!r}")
            else:
                said["data"] = _as_json(array, nested=self.nested)
            inputs.append(said)
        head: dict[str, Any] = {"inputs": inputs}
        if self.id is not None:
            head["id"] = self.id
        if parameters := _understood(self.parameters, has_binary=has_binary):
            head["parameters"] = parameters
        if self.outputs is not None:
            head["outputs"] = [
                {"name": name, **({"parameters": said} if said else {})}
                for name, given in self.outputs.items()
                for said in (_understood(given, has_binary=has_binary),)
            ]
        return Body(head=head, tail=tail)


def _understood(parameters: Mapping[str, Any], *, has_binary: bool) -> dict[str, Any]:
    return {k: v for k, v in parameters.items() if has_binary or not k.startswith("binary_data")}


def _as_json(array: Array, *, nested: bool) -> Any:
    plain = array if nested else array.ravel()
    if array.dtype == object:
        plain = np.vectorize(bytes.decode, otypes=[object])(plain)
    return plain.tolist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferred:
    """An answer to a request for inference.

    Attributes:
        said: Its JSON.
        outputs: Arrays in the order in which they came.
        binary: The outputs that came as bytes.
    """

    said: Mapping[str, Any]
    outputs: Mapping[str, Array]
    binary: frozenset[str]


def infer(target: Target, how: Infer, arrays: Mapping[str, Array] | None = None) -> Inferred:
    """Send a request and read the answer; the case fails if it is none."""
    return read_answer(target, how.body(target, arrays).send(target))


def read_answer(target: Target, answer: Answer) -> Inferred:
    """Read an answer; the case fails where it contradicts itself or the protocol."""
    if answer.status != 200:
        fail(f"{answer.asked}: status {answer.status}, not 200: {answer.body[:200]!r}")
    text, rest = answer.body, b""
    length = answer.headers.get(HEADER.lower())
    if length is not None:
        if not length.isdecimal() or int(length) > len(answer.body):
            fail(f"{HEADER} of the answer is {length!r}, its body has {len(answer.body)} bytes")
        text, rest = answer.body[: int(length)], answer.body[int(length) :]
    else:
        kind = answer.headers.get("content-type", "")
        expect(kind.startswith("application/json"), f"a JSON answer has content type {kind!r}")
    said = Answer(status=200, headers={}, body=text, asked=answer.asked).object()
    expect(said.get("model_name") == target.model, f"model_name is {said.get('model_name')!r}")
    expect(isinstance(said.get("outputs"), list), "the answer has no list of outputs")
    outputs: dict[str, Array] = {}
    binary = set()
    for each in said["outputs"]:
        name, size = each.get("name"), each.get("parameters", {}).get("binary_data_size")
        _check_output(target, each)
        if size is None:
            outputs[name] = _from_json(each)
            continue
        expect(type(size) is int and 0 <= size <= len(rest), f"output {name!r}: {size!r} bytes")
        outputs[name] = from_raw(name, each["datatype"], each["shape"], rest[:size])
        rest = rest[size:]
        binary.add(name)
    expect(not rest, f"{len(rest)} bytes after the last output")
    expect(length is None or bool(binary), f"{HEADER} in an answer without bytes after its JSON")
    return Inferred(said=said, outputs=outputs, binary=frozenset(binary))


def _check_output(target: Target, said: Mapping[str, Any]) -> None:
    """Compare what is said of an output with the metadata."""
    known = {meta.name: meta for meta in target.metadata.outputs}
    name, shape = said.get("name"), said.get("shape")
    meta = known.get(str(name))
    if meta is None:
        fail(f"the answer has output {name!r}, which the metadata does not have")
    expect(
        said.get("datatype") == meta.datatype,
        f"output {name!r} is {said.get('datatype')!r}, in the metadata {meta.datatype}",
    )
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        fail(f"output {name!r} has shape {shape!r}")
    fits = len(shape) == len(meta.shape) and all(
        size in (said_size, -1) for said_size, size in zip(shape, meta.shape, strict=True)
    )
    expect(fits, f"output {name!r} has shape {shape}, in the metadata {list(meta.shape)}")


def _from_json(said: Mapping[str, Any]) -> Array:
    name, datatype, shape = said["name"], said["datatype"], said["shape"]
    expect(datatype not in ONLY_BINARY, f"output {name!r}: JSON has no {datatype}")
    data = said.get("data")
    if not isinstance(data, list):
        fail(f"output {name!r} has neither `data` nor `binary_data_size`")
    flat = _flat(data)
    if len(flat) != math.prod(shape):
        fail(f"output {name!r}: {len(flat)} elements for shape {shape}")
    if datatype == "BYTES":
        array = np.empty(len(flat), dtype=object)
        array[:] = [str(text).encode() for text in flat]
        return array.reshape(shape)
    return np.array(flat, dtype=DATATYPES[datatype]).reshape(shape)


def _flat(data: Sequence[Any]) -> list[Any]:
    if data and isinstance(data[0], list):
        return [element for each in data for element in _flat(each)]
    return list(data)


def reference(target: Target) -> dict[str, Array]:
    """Return the outputs for `target.arrays()`: all as bytes, both ways, the plainest request."""
    if target.reference is None:
        how = Infer(binary=None, parameters={"binary_data_output": True})
        target.reference = dict(infer(target, how).outputs)
    return target.reference


def expect_reference(
    target: Target, outputs: Mapping[str, Array], names: Sequence[str] | None = None
) -> None:
    """End a case unless these are the outputs, in the metadata's order or that of the names."""
    wanted = list(names or (meta.name for meta in target.metadata.outputs))
    if names is None:
        expect(sorted(outputs) == sorted(wanted), f"outputs {list(outputs)}, not {wanted}")
    else:
        expect(list(outputs) == wanted, f"outputs {list(outputs)}, asked were {wanted}")
    for name in wanted:
        right = reference(target)[name]
        if not close(outputs[name], right, target.tolerance):
            fail(f"output {name!r} is another one than in the first answer to the same inputs")
