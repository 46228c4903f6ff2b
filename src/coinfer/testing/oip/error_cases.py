"""Cases of inference over HTTP that must be refused, each with an error of the caller."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from coinfer.testing.oip.infer import HEADER, Body, Infer, expect_reference, infer
from coinfer.testing.oip.target import Target, expect_error
from coinfer.testing.oip.verdict import expect, not_offered

__all__ = ["ERROR_CASES"]


def _refused(
    target: Target, change: Callable[[Body], object], *statuses: int, binary: bool = True
) -> None:
    """Change a right request, and see that it is refused and that the right one still is not."""
    body = Infer(binary=None if binary else ()).body(target)
    change(body)
    expect_error(body.send(target), *(statuses or (400,)))


@contextmanager
def _alive(target: Target) -> Iterator[None]:
    """After the errors of a case, a right request is answered as before."""
    yield
    how = Infer(binary=None, parameters={"binary_data_output": True})
    expect_reference(target, infer(target, how).outputs)


def _input(body: Body, number: int = 0) -> dict[str, Any]:
    found = body.head["inputs"]
    if not found:
        not_offered("the model has no inputs")
    return found[number]  # type: ignore[no-any-return]


def _with(**values: Any) -> Callable[[Body], object]:
    """Return a change: the first input says this."""
    return lambda body: _input(body).update(values)


def wrong_names(target: Target) -> None:
    """An input or output that the model does not have is refused, and one that is there twice."""
    with _alive(target):
        _refused(target, _with(name="no-such-input"))
        _refused(target, lambda body: body.head.update(outputs=[{"name": "no-such-output"}]))
        _refused(target, lambda body: _input(body).pop("name"))

        def twice(body: Body) -> None:
            body.head["inputs"].append(dict(_input(body)))
            body.tail += body.tail[: _input(body).get("parameters", {}).get("binary_data_size", 0)]

        _refused(target, twice)


def missing_inputs(target: Target) -> None:
    """A request without inputs is refused, unless all have defaults."""
    if not target.metadata.inputs:
        not_offered("the model has no inputs")
    with _alive(target):
        _refused(target, lambda body: body.head.pop("inputs"), binary=False)
        body = Infer(binary=None).body(target)
        answer = Body(head={**body.head, "inputs": []}).send(target)
        if answer.status != 200:
            expect_error(answer, 400)


def wrong_datatypes(target: Target) -> None:
    """Another datatype than the model's is refused, and one that is none."""
    right = [meta.datatype for meta in target.metadata.inputs[:1]]
    with _alive(target):
        for wrong in ("FP32", "INT64", "BYTES", "NONSENSE", "fp32", 7, None):
            if wrong not in right:
                _refused(target, _with(datatype=wrong))
        _refused(target, lambda body: _input(body).pop("datatype"))


def wrong_shapes(target: Target) -> None:
    """A shape that the model does not take, or that is none, is refused."""
    shape = list(target.shape(target.metadata.inputs[0])) if target.metadata.inputs else []
    wrong: list[Any] = [[*shape, 1], [-1] * len(shape) or [-1], "4", None, [1.5], ["1"], [[1]]]
    wrong += [[2**62] * max(len(shape), 2), [1] * 1000]
    with _alive(target):
        for each in wrong:
            if each != shape:
                _refused(target, _with(shape=each), 400, 413)


def data_that_does_not_fit_the_shape(target: Target) -> None:
    """Too few or too many elements in JSON, or elements of another kind, are refused."""
    target.needs_json(target.metadata.inputs)

    def changed(data: Callable[[list[Any]], Any]) -> Callable[[Body], object]:
        return lambda body: _input(body).update(data=data(_input(body)["data"]))

    wrong: list[Callable[[list[Any]], Any]] = [
        lambda data: [*data, data[0]],
        lambda data: data[:-1],
        lambda data: [{}] * len(data),
        lambda data: [None] * len(data),
        lambda _: "text",
        lambda _: {},
        lambda _: 1,
    ]
    if target.metadata.inputs and target.metadata.inputs[0].datatype != "BYTES":
        wrong.append(lambda data: ["no number"] * len(data))
    with _alive(target):
        for data in wrong:
            _refused(target, changed(data), binary=False)
        _refused(target, lambda body: _input(body).pop("data"), binary=False)


def sizes_that_lie(target: Target) -> None:
    """A binary_data_size that is not that of the tensor, or of the body, is refused."""
    target.needs("binary_tensor_data")

    def changed(size: Callable[[int], Any]) -> Callable[[Body], object]:
        def change(body: Body) -> None:
            parameters = _input(body)["parameters"]
            parameters["binary_data_size"] = size(parameters["binary_data_size"])

        return change

    wrong: list[Callable[[int], Any]] = [
        lambda n: n + 1,
        lambda n: n - 1,
        lambda n: 0 if n else 1,
        lambda _: -1,
        lambda _: 2**63,
        lambda n: str(n),
        lambda n: n + 0.5,
        lambda _: None,
    ]
    with _alive(target):
        for each in wrong:
            _refused(target, changed(each), 400, 413)


def _longer(body: Body) -> None:
    body.tail += b"12345678"


def _shorter(body: Body) -> None:
    if len(body.tail) < 2:
        not_offered("the inputs have no bytes")
    body.tail = body.tail[:-1]


def bodies_longer_or_shorter_than_said(target: Target) -> None:
    """Bytes beyond the tensors of a body are refused, and tensors beyond its bytes."""
    target.needs("binary_tensor_data")
    with _alive(target):
        _refused(target, _longer)
        _refused(target, _shorter)


def broken_json(target: Target) -> None:
    """What is no JSON object is refused."""
    texts = [b"", b"{", b"[]", b'"text"', b"null", b"7", b"\xff\xfe", b'{"inputs": 3}']
    texts += [b'{"inputs": [3]}', b"{'inputs': []}", b'{"inputs": [], }', b"[" * 100_000]
    with _alive(target):
        for text in texts:
            headers = {"Content-Type": "application/json"}
            answer = target.http.post(f"{target.path}/infer", text, headers)
            if not (text == b"" and answer.status == 411):
                expect_error(answer, 400, 413)


def header_lengths_that_lie(target: Target) -> None:
    """A length of the JSON that is none, or not that of the JSON, is refused."""
    target.needs("binary_tensor_data")
    body = Infer(binary=None).body(target)
    text = json.dumps(body.head).encode()
    wrong = [len(text) - 1, len(text) + len(body.tail) + 1, -1, 2**64, "x", "", "1.5", "0x10"]
    if body.tail:
        wrong.append(len(text) + 1)
    with _alive(target):
        for each in wrong:
            headers = {"Content-Type": "application/octet-stream", HEADER: str(each)}
            answer = target.http.post(f"{target.path}/infer", text + body.tail, headers)
            expect_error(answer, 400, 413)


def bytes_without_a_header_length(target: Target) -> None:
    """JSON with bytes after it is no JSON: without the header it is refused."""
    target.needs("binary_tensor_data")
    body = Infer(binary=None).body(target)
    if not body.tail:
        not_offered("the inputs have no bytes")
    data = json.dumps(body.head).encode() + body.tail
    headers = {"Content-Type": "application/octet-stream"}
    with _alive(target):
        expect_error(target.http.post(f"{target.path}/infer", data, headers), 400, 415)


def clients_that_go_away(target: Target) -> None:
    """Bodies of which a part never comes disturb nobody else."""
    text = json.dumps({"inputs": []}).encode()
    with _alive(target):
        for body in (b"", text[:5], text):
            target.http.send_half(f"{target.path}/infer", body, claimed=len(text) + 1000)
    answer = target.http.get("/v2/health/ready")
    expect(answer.status == 200, f"{answer.asked}: status {answer.status} after that")


def packed_bodies_that_are_none(target: Target) -> None:
    """A body that says it is gzip and is not is refused."""
    with _alive(target):
        for coding in ("gzip", "deflate", "no-such-coding"):
            headers = {"Content-Type": "application/json", "Content-Encoding": coding}
            answer = target.http.post(f"{target.path}/infer", b"plain text", headers)
            expect_error(answer, 400, 415)


ERROR_CASES = (
    wrong_names,
    missing_inputs,
    wrong_datatypes,
    wrong_shapes,
    data_that_does_not_fit_the_shape,
    sizes_that_lie,
    bodies_longer_or_shorter_than_said,
    broken_json,
    header_lengths_that_lie,
    bytes_without_a_header_length,
    clients_that_go_away,
    packed_bodies_that_are_none,
)
"""Cases that run for each model."""
