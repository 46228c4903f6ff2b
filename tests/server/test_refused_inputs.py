"""What no library runs, of sizes or values, is the client's fault; what fails otherwise is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from coinfer.backends.null import Faults, NullBackend
from coinfer.errors import ExecutionError
from coinfer.server.messages import INFERENCE
from coinfer.server.serving import ServeOptions, Server
from coinfer.testing.models import model_from_text
from server.servers import engine_of, serving
from server.test_http import ask, infer

MODELS = {
    name: model_from_text(text, name=name)
    for name, text in {
        "pool": """g (float[N,1,H,W] x) => (float[N,1,I,J] y)
            { y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) }""",
        "rows": """g (int64[N] x) => (float[N,2] y)
            <float[3,2] table = {1, 2, 3, 4, 5, 6}> { y = Gather(table, x) }""",
        "fours": """g (float[N,A] x) => (float[K,4] y)
            <int64[2] shape = {-1, 4}> { y = Reshape(x, shape) }""",
    }.items()
}
REFUSED = {
    "pool": np.zeros((1, 1, 0, 4), np.float32),
    "rows": np.array([1, 7], np.int64),
    "fours": np.zeros((1, 3), np.float32),
}
TAKEN = {
    "pool": np.zeros((1, 1, 4, 4), np.float32),
    "rows": np.array([1, 2], np.int64),
    "fours": np.zeros((1, 8), np.float32),
}
DATATYPES = {"float32": "FP32", "int64": "INT64"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(MODELS, options=ServeOptions(http=0, grpc=0)) as server:
        yield server


def body(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    said = {"name": "x", "datatype": DATATYPES[array.dtype.name], "shape": list(array.shape)}
    return {"inputs": [{**said, "data": array.ravel().tolist()}]}


@pytest.mark.parametrize("name", MODELS)
def test_what_no_library_runs_is_400_with_its_shapes(server: Server, name: str) -> None:
    answer = infer(server, name, body(REFUSED[name]))
    assert answer.status == 400
    shape = list(REFUSED[name].shape)
    assert answer.error.startswith(f"model {name!r} does not run with these inputs (x {shape}); ")
    assert "\n" not in answer.error
    assert infer(server, name, body(TAKEN[name])).status == 200


@pytest.mark.parametrize("name", MODELS)
def test_it_is_invalid_over_grpc(server: Server, name: str) -> None:
    array = REFUSED[name]
    message = INFERENCE["ModelInferRequest"](model_name=name)
    message.inputs.add(name="x", datatype=DATATYPES[array.dtype.name], shape=array.shape)
    message.raw_input_contents.append(array.tobytes())
    with grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc']}") as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as refused:
            call(message.SerializeToString(), timeout=20)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]


def test_a_failure_of_the_machine_stays_one() -> None:
    faults = Faults()
    faults.fail(times=2)
    backends = {"null": NullBackend(faults=faults)}
    with serving({"pool": MODELS["pool"]}, backend="null", backends=backends) as server:
        assert infer(server, "pool", body(TAKEN["pool"])).status == 500
        assert ask(server, "GET", "/v2/health/live").status == 200


def test_the_engine_says_whose_fault_it_is() -> None:
    faults = Faults()
    with engine_of(MODELS) as engine:
        error = engine.submit("rows", {"x": REFUSED["rows"]}).exception(20)
        assert isinstance(error, ExecutionError)
        assert error.is_of_inputs
    with engine_of(MODELS, backend="null", backends={"null": NullBackend(faults=faults)}) as engine:
        faults.fail(times=2)
        error = engine.submit("rows", {"x": TAKEN["rows"]}).exception(20)
        assert isinstance(error, ExecutionError)
        assert not error.is_of_inputs
