"""Cases over gRPC: they agree with HTTP, and refuse with the codes of the protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from coinfer.testing.oip.grpc_client import GrpcClient
from coinfer.testing.oip.infer import expect_reference
from coinfer.testing.oip.target import NOBODY, Target
from coinfer.testing.oip.tensors import DATATYPES, Array, from_raw, to_raw
from coinfer.testing.oip.verdict import expect, fail, not_offered

__all__ = ["GRPC_MODEL_CASES", "GRPC_SERVER_CASES"]

_TYPED = {
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
    "BYTES": "bytes_contents",
}
"""The field that holds the elements of a datatype."""


def grpc_server_is_live_and_ready(target: Target) -> None:
    """Both are true."""
    grpc = target.the_grpc()
    expect(grpc.call("ServerLive").live, "live is false")
    expect(grpc.call("ServerReady").ready, "ready is false")


def grpc_server_says_the_same(target: Target) -> None:
    """Name, version and extensions are those of HTTP."""
    said, other = target.the_grpc().call("ServerMetadata"), target.http.get("/v2").object()
    expect(said.name == other["name"], f"name is {said.name!r}, over HTTP {other['name']!r}")
    expect(said.version == other["version"], f"version is {said.version!r}")
    expect(sorted(said.extensions) == sorted(other["extensions"]), "extensions are others")


def grpc_health_is_serving(target: Target) -> None:
    """GRPC's own service of health says SERVING, and does not know services that there are not."""
    grpc = target.the_grpc()
    code, said = grpc.health("")
    if code == "UNIMPLEMENTED":
        not_offered("there is no service grpc.health.v1.Health")
    expect(code == "OK" and said.status == 1, f"health is {code}: {said}")
    code, said = grpc.health("no.such.Service")
    expect(code == "NOT_FOUND", f"health of an unknown service is {code}, not NOT_FOUND")


def grpc_extensions_are_what_answers(target: Target) -> None:
    """What the extensions name answers, and what they do not name is UNIMPLEMENTED or refused."""
    grpc = target.the_grpc()
    if not target.model:
        not_offered("no model is known")
    for extension, method, fields in (
        ("statistics", "ModelStatistics", {"name": target.model}),
        ("model_configuration", "ModelConfig", {"name": target.model}),
        ("model_repository", "RepositoryIndex", {}),
        ("system_shared_memory", "SystemSharedMemoryStatus", {}),
        ("cuda_shared_memory", "CudaSharedMemoryStatus", {}),
        ("trace", "TraceSetting", {}),
        ("logging", "LogSettings", {}),
    ):
        code, _ = grpc.try_call(method, **fields)
        # An index alone is no offer: the extension is about loading and unloading.
        is_free = extension == "model_repository" and not target.offers(extension)
        if (code == "OK") != target.offers(extension) and not is_free:
            says = "offers" if target.offers(extension) else "does not offer"
            fail(f"the server {says} {extension}, and {method} is {code}")
        if code not in ("OK", "UNIMPLEMENTED", "UNAVAILABLE"):
            fail(f"{method} is not offered, and is {code} in place of UNIMPLEMENTED")


def grpc_unknown_is_refused(target: Target) -> None:
    """A method that is none is UNIMPLEMENTED; a model that does not exist NOT_FOUND."""
    grpc = target.the_grpc()
    code = grpc.try_unknown()
    expect(code == "UNIMPLEMENTED", f"a method that is none is {code}")
    for method, fields in (
        ("ModelMetadata", {"name": NOBODY}),
        ("ModelInfer", {"model_name": NOBODY}),
    ):
        code, text = grpc.try_call(method, **fields)
        expect(code == "NOT_FOUND", f"{method} of a model that is none is {code}: {text}")
    code, said = grpc.try_call("ModelReady", name=NOBODY)
    expect(code == "NOT_FOUND" or (code == "OK" and not said.ready), f"ModelReady is {code}")


def grpc_bytes_that_are_no_message(target: Target) -> None:
    """Bytes that are no message are refused, and the next call is answered."""
    grpc = target.the_grpc()
    for data in (b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x2a\x05abc"):
        code = grpc.try_raw("ModelInfer", data)
        refused = ("INVALID_ARGUMENT", "INTERNAL", "UNKNOWN")
        expect(code in refused, f"bytes that are no message are {code}")
    expect(grpc.call("ServerLive").live, "live is false after that")


GRPC_SERVER_CASES = (
    grpc_server_is_live_and_ready,
    grpc_server_says_the_same,
    grpc_health_is_serving,
    grpc_extensions_are_what_answers,
    grpc_unknown_is_refused,
    grpc_bytes_that_are_no_message,
)
"""Cases that run once."""


def grpc_metadata_is_the_same(target: Target) -> None:
    """Metadata are those of HTTP, and the model is ready."""
    grpc = target.the_grpc()
    said, other = grpc.call("ModelMetadata", name=target.model), target.metadata
    expect(said.name == target.model, f"name is {said.name!r}")
    expect(tuple(said.versions) == other.versions, f"versions are {list(said.versions)}")
    for word, ours in (("inputs", other.inputs), ("outputs", other.outputs)):
        found = [(each.name, each.datatype, tuple(each.shape)) for each in getattr(said, word)]
        wanted = [(meta.name, meta.datatype, meta.shape) for meta in ours]
        expect(found == wanted, f"{word} are {found}, over HTTP {wanted}")
    expect(grpc.call("ModelReady", name=target.model).ready, "the model is not ready")


def _request(
    target: Target, *, typed: bool = False, outputs: tuple[str, ...] = (), text: str = ""
) -> Any:
    grpc, datatypes = target.the_grpc(), target.datatypes()
    request = grpc.message("ModelInferRequest", model_name=target.model, id=text)
    for name, array in target.arrays().items():
        tensor = request.inputs.add(name=name, datatype=datatypes[name], shape=array.shape)
        if not typed:
            request.raw_input_contents.append(to_raw(array))
            continue
        field = _TYPED.get(datatypes[name])
        if field is None:
            not_offered(f"typed contents have no {datatypes[name]}, the datatype of {name!r}")
        getattr(tensor.contents, field).extend(array.ravel().tolist())
    for name in outputs:
        request.outputs.add(name=name)
    return request


def _outputs(answer: Any) -> dict[str, Array]:
    """Read the outputs, of which all are raw or none is."""
    raw = list(answer.raw_output_contents)
    typed = [bool(each.contents.ListFields()) for each in answer.outputs]
    if raw and any(typed):
        fail("the answer mixes raw and typed contents")
    if raw and len(raw) != len(answer.outputs):
        fail(f"the answer has {len(answer.outputs)} outputs and {len(raw)} raw contents")
    found = {}
    for number, each in enumerate(answer.outputs):
        if raw:
            found[each.name] = from_raw(each.name, each.datatype, each.shape, raw[number])
        else:
            data = list(getattr(each.contents, _TYPED.get(each.datatype, "bytes_contents")))
            expect(
                len(data) == math.prod(each.shape), f"output {each.name!r}: {len(data)} elements"
            )
            array = np.array(data, dtype=DATATYPES[each.datatype])
            found[each.name] = array.reshape(tuple(each.shape))
    return found


def grpc_raw_contents(target: Target) -> None:
    """Raw contents give the outputs of HTTP; model, version and id are named."""
    grpc = target.the_grpc()
    answer = grpc.call("ModelInfer", _request(target, text="id-7"))
    expect(answer.id == "id-7", f"id came back as {answer.id!r}")
    expect(answer.model_name == target.model, f"model_name is {answer.model_name!r}")
    if target.metadata.versions:
        said = answer.model_version
        expect(said in target.metadata.versions, f"model_version is {said!r}")
    expect_reference(target, _outputs(answer))


def grpc_typed_contents(target: Target) -> None:
    """Typed contents give the same outputs."""
    answer = target.the_grpc().call("ModelInfer", _request(target, typed=True))
    expect_reference(target, _outputs(answer))


def grpc_outputs_that_are_asked_for(target: Target) -> None:
    """Only the outputs that are asked for come, in that order."""
    names = [meta.name for meta in target.metadata.outputs]
    for asked in ([names[0]], names[::-1]):
        request = _request(target, outputs=tuple(asked))
        answer = target.the_grpc().call("ModelInfer", request)
        expect_reference(target, _outputs(answer), asked)


def grpc_wrong_requests(target: Target) -> None:
    """What does not fit the model is INVALID_ARGUMENT, and the right request is still answered."""
    grpc = target.the_grpc()
    if not target.metadata.inputs:
        not_offered("the model has no inputs")
    changes: Mapping[str, Callable[[Any], object]] = {
        "an unknown input": lambda r: setattr(r.inputs[0], "name", "no-such-input"),
        "an unknown output": lambda r: r.outputs.add(name="no-such-output"),
        "a datatype that is none": lambda r: setattr(r.inputs[0], "datatype", "NONSENSE"),
        "a further axis": lambda r: r.inputs[0].shape.append(1),
        "a negative size": lambda r: r.inputs[0].shape.__setitem__(slice(None), [-1]),
        "a huge size": lambda r: r.inputs[0].shape.__setitem__(slice(None), [2**62, 4]),
        "a byte too many": lambda r: r.raw_input_contents.__setitem__(
            0, r.raw_input_contents[0] + b"\0"
        ),
        "raw contents left out": lambda r: r.ClearField("raw_input_contents"),
        "raw contents too many": lambda r: r.raw_input_contents.append(b"1234"),
        "5 MB too many": lambda r: r.raw_input_contents.__setitem__(0, bytes(5_000_000)),
        "an input twice": lambda r: (
            r.inputs.add().CopyFrom(r.inputs[0]),
            r.raw_input_contents.append(r.raw_input_contents[0]),
        ),
    }
    for what, change in changes.items():
        request = _request(target)
        change(request)
        code, text = grpc.try_call("ModelInfer", request)
        is_large = what == "a huge size" and code == "RESOURCE_EXHAUSTED"
        expect(
            code == "INVALID_ARGUMENT" or is_large,
            f"{what}: {code}, not INVALID_ARGUMENT: {text}",
        )
    expect_reference(target, _outputs(grpc.call("ModelInfer", _request(target))))


def grpc_raw_and_typed_are_not_mixed(target: Target) -> None:
    """A request with raw and typed contents is INVALID_ARGUMENT."""
    if not target.metadata.inputs:
        not_offered("the model has no inputs")
    request = _request(target, typed=True)
    first = next(iter(target.arrays().values()))
    request.raw_input_contents.append(to_raw(first))
    code, text = target.the_grpc().try_call("ModelInfer", request)
    expect(code == "INVALID_ARGUMENT", f"{code}, not INVALID_ARGUMENT: {text}")


def grpc_streams(target: Target) -> None:
    """Over a stream each request is answered by its id; one that is wrong does not end it."""
    grpc = target.the_grpc()
    if grpc.try_stream([]) == "UNIMPLEMENTED":
        not_offered("streams are not offered")
    requests = [_request(target, text=f"id-{number}") for number in range(4)]
    requests[1].inputs[0].name = "no-such-input"
    answers = list(grpc.stream(requests))
    expect(len(answers) == 4, f"{len(answers)} answers to 4 requests")
    wrong = [each for each in answers if each.error_message]
    expect(len(wrong) == 1, f"{len(wrong)} errors, of 1 wrong request of 4")
    right = [each.infer_response for each in answers if not each.error_message]
    ids = sorted(each.id for each in right)
    expect(ids == ["id-0", "id-2", "id-3"], f"the right ones are answered as {ids}")
    for each in right:
        expect_reference(target, _outputs(each))


def grpc_clients_that_go_away(target: Target) -> None:
    """Requests that their client gives up disturb nobody else."""
    grpc = target.the_grpc()
    for _ in range(5):
        grpc.give_up("ModelInfer", _request(target))
    expect_reference(target, _outputs(grpc.call("ModelInfer", _request(target))))


def grpc_configuration_and_statistics(target: Target) -> None:
    """Configuration names the inputs, statistics the model, the index both; as over HTTP."""
    grpc: GrpcClient = target.the_grpc()
    if target.offers("model_configuration"):
        config = grpc.call("ModelConfig", name=target.model).config
        names = sorted(each.name for each in config.input)
        expect(names == sorted(target.datatypes()), f"inputs of the configuration are {names}")
    if target.offers("statistics"):
        before = grpc.call("ModelStatistics", name=target.model).model_stats
        grpc.call("ModelInfer", _request(target))
        after = grpc.call("ModelStatistics", name=target.model).model_stats
        counts = [sum(each.inference_count for each in said) for said in (before, after)]
        expect(counts[1] > counts[0], f"inference_count is {counts[1]} after {counts[0]}")
        expect({each.name for each in after} == {target.model}, "statistics are of other models")
    if target.offers("model_repository"):
        names = [each.name for each in grpc.call("RepositoryIndex").models]
        expect(target.model in names, f"{target.model} is not in the index {names}")


GRPC_MODEL_CASES = (
    grpc_metadata_is_the_same,
    grpc_raw_contents,
    grpc_typed_contents,
    grpc_outputs_that_are_asked_for,
    grpc_wrong_requests,
    grpc_raw_and_typed_are_not_mixed,
    grpc_streams,
    grpc_clients_that_go_away,
    grpc_configuration_and_statistics,
)
"""Cases that run for each model."""
