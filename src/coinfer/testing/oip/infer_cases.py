"""Cases of inference over HTTP that must succeed: each way to write a request and an answer."""

from __future__ import annotations

import gzip
import json
import zlib

import numpy as np

from coinfer.testing.oip.http_client import Answer
from coinfer.testing.oip.infer import (
    HEADER,
    Infer,
    expect_reference,
    infer,
    read_answer,
    reference,
)
from coinfer.testing.oip.target import Target
from coinfer.testing.oip.tensors import close
from coinfer.testing.oip.verdict import expect, fail, not_offered

__all__ = ["INFER_CASES"]

_BINARY_OUTPUT = {"binary_data_output": True}


def json_in_json_out(target: Target) -> None:
    """Without parameters, JSON goes in and JSON comes out."""
    target.needs_json([*target.metadata.inputs, *target.metadata.outputs])
    found = infer(target, Infer())
    expect(not found.binary, "outputs came as bytes, though nobody asked for that")
    expect_reference(target, found.outputs)


def json_with_nested_lists(target: Target) -> None:
    """Data in nested lists is the same as in one list."""
    target.needs_json([*target.metadata.inputs, *target.metadata.outputs])
    expect_reference(target, infer(target, Infer(nested=True)).outputs)


def binary_in_json_out(target: Target) -> None:
    """Bytes go in; without parameters, JSON comes out."""
    target.needs("binary_tensor_data")
    target.needs_json(target.metadata.outputs)
    found = infer(target, Infer(binary=None))
    expect(not found.binary, "outputs came as bytes, though nobody asked for that")
    expect_reference(target, found.outputs)


def binary_in_binary_out(target: Target) -> None:
    """`binary_data_output` of the request lets all outputs come as bytes."""
    target.needs("binary_tensor_data")
    found = infer(target, Infer(binary=None, parameters=_BINARY_OUTPUT))
    expect(found.binary == set(found.outputs), f"only {sorted(found.binary)} came as bytes")
    expect_reference(target, found.outputs)


def json_in_binary_out(target: Target) -> None:
    """JSON goes in and bytes come out."""
    target.needs("binary_tensor_data")
    target.needs_json(target.metadata.inputs)
    found = infer(target, Infer(parameters=_BINARY_OUTPUT))
    expect(found.binary == set(found.outputs), f"only {sorted(found.binary)} came as bytes")
    expect_reference(target, found.outputs)


def inputs_of_both_kinds(target: Target) -> None:
    """One input as bytes and the others as JSON, each in turn."""
    target.needs("binary_tensor_data")
    names = [meta.name for meta in target.metadata.inputs]
    if len(names) < 2:
        not_offered("the model has one input")
    target.needs_json([*target.metadata.inputs, *target.metadata.outputs])
    for name in names[:4]:
        expect_reference(target, infer(target, Infer(binary=[name])).outputs)


def outputs_of_both_kinds(target: Target) -> None:
    """`binary_data` of an output goes before `binary_data_output` of the request."""
    target.needs("binary_tensor_data")
    metas = target.metadata.outputs
    target.needs_json(metas)
    for number in range(min(len(metas), 4)):
        for default in (True, False):
            wanted = {
                meta.name: {"binary_data": default} if index == number else {}
                for index, meta in enumerate(metas)
            }
            how = Infer(binary=None, outputs=wanted, parameters={"binary_data_output": not default})
            found = infer(target, how)
            chosen = metas[number].name
            expect(
                (chosen in found.binary) == default,
                f"output {chosen!r} with binary_data {default} came the other way",
            )
            others = set(found.outputs) - {chosen}
            expect(
                all((name in found.binary) != default for name in others),
                f"outputs beside {chosen!r} did not follow binary_data_output {not default}",
            )
            expect_reference(target, found.outputs, list(wanted))


def outputs_that_are_asked_for(target: Target) -> None:
    """Only the outputs that are asked for come, in that order."""
    names = [meta.name for meta in target.metadata.outputs]
    for asked in ([names[0]], [names[-1]], names[::-1]):
        how = Infer(binary=None, outputs={name: {"binary_data": True} for name in asked})
        expect_reference(target, infer(target, how).outputs, asked)


def ids_come_back(target: Target) -> None:
    """The id of the request is that of the answer."""
    for text in ("42", 'odd "id" \u00e9\n', "x" * 200):
        said = infer(target, Infer(binary=None, id=text)).said
        expect(said.get("id") == text, f"id {text!r} came back as {said.get('id')!r}")


def versions_answer(target: Target) -> None:
    """Inference by version answers with that version."""
    for version in target.metadata.versions:
        path = f"{target.path}/versions/{version}/infer"
        how = Infer(binary=None, parameters=_BINARY_OUTPUT)
        found = read_answer(target, how.body(target).send(target, path))
        said = found.said.get("model_version")
        expect(said == version, f"{path} answered with version {said!r}")


def priority_and_timeout_are_taken(target: Target) -> None:
    """The parameters `priority` and `timeout` are no errors where `schedule_policy` is offered."""
    target.needs("schedule_policy")
    given = {"priority": 1, "timeout": 30_000_000}
    expect_reference(target, infer(target, Infer(binary=None, parameters=given)).outputs)


def batches_are_rows(target: Target) -> None:
    """A batch of three has three rows, and the first is that of the same sample alone."""
    metas = [*target.metadata.inputs, *target.metadata.outputs]
    if not all(meta.shape[:1] == (-1,) for meta in metas) or target.shapes:
        not_offered("not all inputs and outputs have an open first axis")
    arrays = target.arrays(batch=3)
    how = Infer(binary=None, parameters=_BINARY_OUTPUT)
    whole = infer(target, how, arrays).outputs
    first = infer(target, how, {name: array[:1] for name, array in arrays.items()}).outputs
    for name, array in whole.items():
        expect(array.shape[:1] == (3,), f"output {name!r} has shape {array.shape} for a batch of 3")
        if not close(array[:1], first[name], target.tolerance):
            fail(f"output {name!r}: the first row of three is not that of the sample alone")


def compressed_requests(target: Target) -> None:
    """A body in gzip or deflate is read, or refused with 415."""
    body = Infer(binary=None).body(target)
    plain = body.send(target)
    for coding, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        headers, data = _packed(body.head, body.tail)
        headers["Content-Encoding"] = coding
        answer = target.http.post(f"{target.path}/infer", pack(data), headers)
        if answer.status == 415:
            not_offered(f"{coding} is refused")
        expect(answer.status == plain.status, f"{coding}: {answer.status}: {answer.body[:120]!r}")
        expect_reference(target, read_answer(target, answer).outputs)


def _packed(head: object, tail: bytes) -> tuple[dict[str, str], bytes]:
    text = json.dumps(head).encode()
    if not tail:
        return {"Content-Type": "application/json"}, text
    return {"Content-Type": "application/octet-stream", HEADER: str(len(text))}, text + tail


def compressed_answers(target: Target) -> None:
    """An answer in a coding is one that the client takes, and unpacks to the same."""
    body = Infer(binary=None, parameters=_BINARY_OUTPUT).body(target)
    for coding in ("gzip", "deflate", "identity"):
        body.headers["Accept-Encoding"] = coding
        answer = body.send(target)
        used = answer.headers.get("content-encoding", "identity")
        expect(used in (coding, "identity"), f"asked for {coding}, the answer is in {used}")
        data = answer.body
        try:
            if used != "identity":
                data = gzip.decompress(data) if used == "gzip" else zlib.decompress(data)
        except (OSError, zlib.error, EOFError) as error:
            fail(f"the answer is not in {used}: {error}")
        plain = Answer(status=answer.status, headers=answer.headers, body=data, asked=answer.asked)
        expect_reference(target, read_answer(target, plain).outputs)


def headers_in_any_case(target: Target) -> None:
    """Names of headers are the same in upper and lower case."""
    target.needs("binary_tensor_data")
    body = Infer(binary=None, parameters=_BINARY_OUTPUT).body(target)
    headers, data = _packed(body.head, body.tail)
    lower = {name.lower(): value for name, value in headers.items()}
    answer = target.http.post(f"{target.path}/infer", data, lower)
    expect_reference(target, read_answer(target, answer).outputs)


def answers_stay_the_same(target: Target) -> None:
    """Equal requests have equal answers, and other inputs have others where that can be told."""
    for _ in range(5):
        how = Infer(binary=None, parameters=_BINARY_OUTPUT)
        expect_reference(target, infer(target, how).outputs)
    floats = [a for a in reference(target).values() if np.issubdtype(a.dtype, np.floating)]
    for array in floats:
        expect(not np.isnan(array).all(), "an output is all NaN")


INFER_CASES = (
    json_in_json_out,
    json_with_nested_lists,
    binary_in_json_out,
    binary_in_binary_out,
    json_in_binary_out,
    inputs_of_both_kinds,
    outputs_of_both_kinds,
    outputs_that_are_asked_for,
    ids_come_back,
    versions_answer,
    priority_and_timeout_are_taken,
    batches_are_rows,
    compressed_requests,
    compressed_answers,
    headers_in_any_case,
    answers_stay_the_same,
)
"""Cases that run for each model."""
