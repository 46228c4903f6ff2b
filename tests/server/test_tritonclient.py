"""Triton's own client drives the server unchanged, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("tritonclient.http")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

import tritonclient.http as triton  # noqa: E402
import tritonclient.http.aio as triton_aio  # noqa: E402
from tritonclient.utils import InferenceServerException, serialize_byte_tensor  # noqa: E402
from tritonclient.utils import shared_memory as client_memory  # noqa: E402

from coinfer.server.serving import Server  # noqa: E402
from coinfer.testing.models import tiny_linear  # noqa: E402
from server.servers import ECHO, address  # noqa: E402

VALUES = {
    "BOOL": np.array([[True, False, True]]),
    "FP16": np.array([[0.5, -2.0, 65504.0]], np.float16),
    "FP32": np.array([[0.1, -3.4e38, 7.0]], np.float32),
    "FP64": np.array([[0.1, -1.7e308, 7.0]]),
    "BYTES": np.array([["a", "", "größer\x00"]], object),
    **{
        name: np.array([[np.iinfo(ECHO[name]).min, 1, np.iinfo(ECHO[name]).max]], ECHO[name])
        for name in ECHO
        if "INT" in name
    },
}


@pytest.fixture(scope="module")
def client(tiny_server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address(tiny_server)) as made:
        yield made


def given(name: str, values: np.ndarray, *, binary: bool = True) -> triton.InferInput:
    kind = next(k for k, v in VALUES.items() if v.dtype == values.dtype)
    made = triton.InferInput(name, list(values.shape), kind)
    if kind == "BYTES" and binary:
        values = np.array([text.encode() for text in values.ravel()], object).reshape(values.shape)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def texts(values: np.ndarray) -> list[str]:
    return [t.decode() if isinstance(t, bytes) else t for t in values.ravel()]


def test_it_is_live_and_ready_and_says_what_it_is(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("linear")
    assert client.is_model_ready("linear", "1")
    metadata = client.get_server_metadata()
    assert metadata["name"] == "coinfer"
    assert "binary_tensor_data" in metadata["extensions"]
    assert not {"trace", "logging", "cuda_shared_memory", "model_repository"} & set(
        metadata["extensions"]
    )


def test_metadata_and_configuration_of_a_model(client: triton.InferenceServerClient) -> None:
    assert client.get_model_metadata("linear") == {
        "name": "linear",
        "versions": ["1"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
    }
    config = client.get_model_config("linear")
    assert config["max_batch_size"] == 1024
    assert config["input"][0]["dims"] == [4]


@pytest.mark.parametrize("datatype", list(ECHO))
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_every_datatype_goes_there_and_back(
    client: triton.InferenceServerClient, datatype: str, binary: bool
) -> None:
    values = VALUES[datatype]
    if datatype == "FP16" and not binary:
        pytest.skip("FP16 has no form in JSON")
    wanted = triton.InferRequestedOutput("y", binary_data=binary)
    answer = client.infer(datatype, [given("x", values, binary=binary)], outputs=[wanted])
    found = answer.as_numpy("y")
    assert found.shape == values.shape
    if datatype == "BYTES":
        assert texts(found) == texts(values)
    else:
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_bodies_may_be_packed(client: triton.InferenceServerClient, packing: str) -> None:
    values = np.zeros((64, 64), np.float32)
    answer = client.infer(
        "FP32",
        [given("x", values)],
        request_compression_algorithm=packing,
        response_compression_algorithm=packing,
    )
    np.testing.assert_array_equal(answer.as_numpy("y"), values)


def test_an_answer_repeats_the_id_and_names_model_and_version(
    client: triton.InferenceServerClient,
) -> None:
    answer = client.infer("FP32", [given("x", VALUES["FP32"])], request_id="seven")
    said = answer.get_response()
    assert (said["id"], said["model_name"], said["model_version"]) == ("seven", "FP32", "1")


def test_the_clients_batch_is_the_requests_batch(client: triton.InferenceServerClient) -> None:
    example = tiny_linear()
    inputs = example.model.sample_inputs(batch=5)
    answer = client.infer("linear", [given("x", inputs["x"])])
    np.testing.assert_allclose(answer.as_numpy("y"), example.reference(inputs)["y"], rtol=1e-5)
    before = client.get_inference_statistics("linear")["model_stats"][0]
    client.infer("linear", [given("x", inputs["x"])])
    after = client.get_inference_statistics("linear")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 5
    assert after["inference_stats"]["success"]["count"] > 0
    assert after["last_inference"] > 0


def test_the_largest_outputs_are_named(client: triton.InferenceServerClient) -> None:
    values = np.array([[1.0, 3.0, 2.0], [5.0, 4.0, 6.0]], np.float32)
    wanted = triton.InferRequestedOutput("y", class_count=2)
    answer = client.infer("FP32", [given("x", values)], outputs=[wanted])
    assert texts(answer.as_numpy("y")) == ["3.000000:1", "2.000000:2", "6.000000:2", "5.000000:0"]


def test_shared_memory_carries_inputs_and_outputs(client: triton.InferenceServerClient) -> None:
    values = VALUES["FP32"]
    size = values.nbytes
    region = client_memory.create_shared_memory_region("both", "/coinfer_test_both", 2 * size)
    try:
        client_memory.set_shared_memory_region(region, [values])
        client.register_system_shared_memory("both", "/coinfer_test_both", 2 * size)
        assert [each["name"] for each in client.get_system_shared_memory_status()] == ["both"]
        tensor = triton.InferInput("x", list(values.shape), "FP32")
        tensor.set_shared_memory("both", size)
        wanted = triton.InferRequestedOutput("y")
        wanted.set_shared_memory("both", size, offset=size)
        answer = client.infer("FP32", [tensor], outputs=[wanted])
        assert answer.get_output("y")["parameters"]["shared_memory_byte_size"] == size
        found = client_memory.get_contents_as_numpy(region, np.float32, [1, 3], offset=size)
        np.testing.assert_array_equal(found, values)
        del found
    finally:
        client.unregister_system_shared_memory()
        client_memory.destroy_shared_memory_region(region)
    assert client.get_system_shared_memory_status() == []


def test_texts_go_through_shared_memory(client: triton.InferenceServerClient) -> None:
    values = np.array([[b"one", b"two"]], object)
    region = client_memory.create_shared_memory_region("texts", "/coinfer_test_texts", 256)
    try:
        client_memory.set_shared_memory_region(region, [serialize_byte_tensor(values)])
        client.register_system_shared_memory("texts", "/coinfer_test_texts", 256)
        tensor = triton.InferInput("x", [1, 2], "BYTES")
        tensor.set_shared_memory("texts", 2 * (4 + 3))
        answer = client.infer("BYTES", [tensor])
        assert texts(answer.as_numpy("y")) == ["one", "two"]
    finally:
        client.unregister_system_shared_memory("texts")
        client_memory.destroy_shared_memory_region(region)


@pytest.mark.parametrize(
    ("key", "size", "why"),
    [
        ("/../etc/passwd", 8, "its key must be"),
        ("/coinfer_is_not_there", 8, "cannot be opened"),
    ],
)
def test_keys_of_shared_memory_are_checked(
    client: triton.InferenceServerClient, key: str, size: int, why: str
) -> None:
    with pytest.raises(InferenceServerException, match=why):
        client.register_system_shared_memory("bad", key, size)


def test_what_is_wrong_is_said(client: triton.InferenceServerClient) -> None:
    right = given("x", VALUES["FP32"])
    with pytest.raises(InferenceServerException, match="unknown model 'nope'") as error:
        client.infer("nope", [right])
    assert error.value.status() == "404"
    with pytest.raises(InferenceServerException, match=r"takes shape \[N,4\]") as error:
        client.infer("linear", [right])
    assert error.value.status() == "400"
    with pytest.raises(InferenceServerException, match="has no output 'z'"):
        client.infer("FP32", [right], outputs=[triton.InferRequestedOutput("z")])
    with pytest.raises(InferenceServerException, match="takes int8 but got float32"):
        client.infer("INT8", [right])


def test_clients_may_not_load_models_unless_told_so(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="--model-control") as error:
        client.unload_model("linear")
    assert error.value.status() == "403"
    assert {"name": "linear", "version": "1", "state": "READY", "reason": ""} in (
        client.get_model_repository_index()
    )


def test_what_is_not_offered_is_said(client: triton.InferenceServerClient) -> None:
    for ask in (client.get_log_settings, client.get_trace_settings):
        with pytest.raises(InferenceServerException, match="does not offer") as error:
            ask()
        assert error.value.status() == "501"


def test_many_at_a_time_over_asyncio(tiny_server: Server) -> None:
    async def ask() -> list[np.ndarray]:
        async with triton_aio.InferenceServerClient(address(tiny_server)) as client:
            tensors = [np.full((1, 3), n, np.float32) for n in range(64)]
            answers = await asyncio.gather(
                *(client.infer("FP32", [given("x", each)]) for each in tensors)
            )
            return [answer.as_numpy("y") for answer in answers]

    for number, found in enumerate(asyncio.run(ask())):
        np.testing.assert_array_equal(found, np.full((1, 3), number, np.float32))
