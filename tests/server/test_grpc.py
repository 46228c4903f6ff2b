"""Triton's own client drives the server unchanged over gRPC, and so does a careless one."""

from __future__ import annotations

import asyncio
import queue
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

import grpc  # noqa: E402
import tritonclient.grpc as triton  # noqa: E402
import tritonclient.grpc.aio as triton_aio  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402
from tritonclient.utils import shared_memory as client_memory  # noqa: E402

from coinfer.backends.null import Faults, NullBackend  # noqa: E402
from coinfer.errors import ConfigurationError  # noqa: E402
from coinfer.server.access import Tenant  # noqa: E402
from coinfer.server.limits import ServerLimits  # noqa: E402
from coinfer.server.messages import INFERENCE, METHODS  # noqa: E402
from coinfer.server.serving import ServeOptions, Server  # noqa: E402
from coinfer.testing.models import tiny_linear  # noqa: E402
from coinfer.testing.oip.grpc_client import GrpcClient  # noqa: E402
from server.servers import ECHO, new_certificate, serving, tiny_models  # noqa: E402
from server.test_tritonclient import VALUES, texts  # noqa: E402


def _options(**changes: Any) -> ServeOptions:
    return ServeOptions(http=None, grpc=0, **changes)


def _address(server: Server) -> str:
    return f"127.0.0.1:{server.ports['grpc']}"


@pytest.fixture(scope="module")
def tiny() -> Iterator[Server]:
    with serving(tiny_models(), options=_options()) as server:
        yield server


@pytest.fixture
def client(tiny: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(_address(tiny)) as made:
        yield made


@pytest.fixture
def slow() -> Iterator[tuple[Server, Faults]]:
    """A server of a model `m` whose runs can be told to hang."""
    backend = NullBackend(service_s=lambda *_: 0.0)
    with serving(
        {"m": tiny_linear().model},
        options=_options(limits=ServerLimits(drain_s=2.0)),
        backend="null",
        backends={"null": backend},
    ) as server:
        yield server, backend.faults
        backend.faults.release()


def given(name: str, values: np.ndarray) -> triton.InferInput:
    kind = next(k for k, v in VALUES.items() if v.dtype == values.dtype)
    made = triton.InferInput(name, list(values.shape), kind)
    if kind == "BYTES":
        values = np.array([text.encode() for text in values.ravel()], object).reshape(values.shape)
    made.set_data_from_numpy(values)
    return made


def test_it_is_live_and_ready_and_says_what_it_is(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("linear", "1")
    assert client.get_server_metadata().name == "coinfer"
    metadata = client.get_model_metadata("linear", as_json=True)
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}]
    config = client.get_model_config("linear").config
    assert (config.max_batch_size, list(config.input[0].dims)) == (1024, [4])
    assert {each.name for each in client.get_model_repository_index().models} == set(tiny_models())


@pytest.mark.parametrize("datatype", list(ECHO))
def test_every_datatype_goes_there_and_back(
    client: triton.InferenceServerClient, datatype: str
) -> None:
    values = VALUES[datatype]
    found = client.infer(datatype, [given("x", values)]).as_numpy("y")
    assert found.shape == values.shape
    if datatype == "BYTES":
        assert texts(found) == texts(values)
    else:
        np.testing.assert_array_equal(found, values)


def test_a_large_tensor_is_no_limit(client: triton.InferenceServerClient) -> None:
    values = np.arange(4_000_000, dtype=np.float32).reshape(4, -1)  # 16 MB, beyond gRPC's 4
    found = client.infer("FP32", [given("x", values)]).as_numpy("y")
    np.testing.assert_array_equal(found, values)


def test_a_message_beyond_the_limit_is_refused() -> None:
    options = _options(limits=ServerLimits(body_bytes=1000))
    with (
        serving(tiny_models(), options=options) as server,
        triton.InferenceServerClient(_address(server)) as client,
        pytest.raises(InferenceServerException) as error,
    ):
        client.infer("FP32", [given("x", np.zeros((1, 1 << 19), np.float32))])
    assert error.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


def test_the_answer_repeats_the_id_and_counts(client: triton.InferenceServerClient) -> None:
    example = tiny_linear()
    inputs = example.model.sample_inputs(batch=5)
    before = client.get_inference_statistics("linear").model_stats[0].inference_count
    answer = client.infer("linear", [given("x", inputs["x"])], request_id="seven")
    np.testing.assert_allclose(answer.as_numpy("y"), example.reference(inputs)["y"], rtol=1e-5)
    said = answer.get_response()
    assert (said.id, said.model_name, said.model_version) == ("seven", "linear", "1")
    after = client.get_inference_statistics("linear").model_stats[0].inference_count
    assert after - before == 5


def test_a_request_may_ask_why(client: triton.InferenceServerClient) -> None:
    tensors = [given("x", VALUES["FP32"])]
    said = client.infer("FP32", tensors, headers={"x-coinfer-explain": "1"}).get_response()
    assert "p0" in said.parameters["coinfer_explain"].string_param
    assert not client.infer("FP32", tensors).get_response().parameters


def test_classes_are_named(client: triton.InferenceServerClient) -> None:
    values = np.array([[1.0, 3.0, 2.0]], np.float32)
    wanted = triton.InferRequestedOutput("y", class_count=2)
    answer = client.infer("FP32", [given("x", values)], outputs=[wanted])
    assert texts(answer.as_numpy("y")) == ["3.000000:1", "2.000000:2"]


def test_shared_memory_carries_inputs_and_outputs(client: triton.InferenceServerClient) -> None:
    values = VALUES["FP32"]
    size = values.nbytes
    region = client_memory.create_shared_memory_region("rpc", "/coinfer_test_rpc", 2 * size)
    try:
        client_memory.set_shared_memory_region(region, [values])
        client.register_system_shared_memory("rpc", "/coinfer_test_rpc", 2 * size)
        assert list(client.get_system_shared_memory_status().regions) == ["rpc"]
        tensor = triton.InferInput("x", list(values.shape), "FP32")
        tensor.set_shared_memory("rpc", size)
        wanted = triton.InferRequestedOutput("y")
        wanted.set_shared_memory("rpc", size, offset=size)
        answer = client.infer("FP32", [tensor], outputs=[wanted])
        said = answer.get_output("y").parameters["shared_memory_byte_size"]
        assert said.int64_param == size
        found = client_memory.get_contents_as_numpy(region, np.float32, [1, 3], offset=size)
        np.testing.assert_array_equal(found, values)
        del found
    finally:
        client.unregister_system_shared_memory()
        client_memory.destroy_shared_memory_region(region)
    assert not client.get_system_shared_memory_status().regions


def test_what_is_wrong_is_said_with_a_code(client: triton.InferenceServerClient) -> None:
    right = given("x", VALUES["FP32"])
    for model, tensor, code in (
        ("nope", right, "NOT_FOUND"),
        ("FP64", right, "INVALID_ARGUMENT"),
        ("linear", right, "INVALID_ARGUMENT"),
    ):
        with pytest.raises(InferenceServerException) as error:
            client.infer(model, [tensor])
        assert error.value.status() == f"StatusCode.{code}"
    for call in (client.get_trace_settings, client.get_log_settings):
        with pytest.raises(InferenceServerException) as error:
            call()
        assert error.value.status() == "StatusCode.UNIMPLEMENTED"
    with pytest.raises(InferenceServerException) as error:
        client.load_model("linear")
    assert error.value.status() == "StatusCode.PERMISSION_DENIED"


def test_streams_answer_in_order_and_errors_do_not_end_them(
    client: triton.InferenceServerClient,
) -> None:
    came: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(callback=lambda result, error: came.put((result, error)))
    for number in range(20):
        model = "nope" if number == 7 else "FP32"
        values = np.full((1, 3), number, np.float32)
        client.async_stream_infer(
            model,
            [given("x", values)],
            request_id=str(number),
            enable_empty_final_response=True,
        )
    found = [came.get(timeout=10) for _ in range(20)]
    client.stop_stream()
    assert "unknown model 'nope'" in str(found[7][1])
    ids = [result.get_response().id for result, error in found if error is None]
    assert ids == [str(number) for number in range(20) if number != 7]
    last = found[-1][0]
    assert last.as_numpy("y")[0, 0] == 19
    assert last.get_response().parameters["triton_final_response"].bool_param


def test_open_streams_end_well_with_the_server() -> None:
    method, sent = METHODS["ModelStreamInfer"], queue.SimpleQueue[Any]()
    options = _options(limits=ServerLimits(drain_s=60.0))
    with serving(tiny_models(), options=options) as server:
        channel = grpc.insecure_channel(_address(server))
        call = channel.stream_stream(method.path, response_deserializer=bytes)
        message = INFERENCE["ModelInferRequest"](model_name="FP32")
        message.inputs.add(name="x", datatype="FP32", shape=[1, 1])
        message.raw_input_contents.append(bytes(4))
        sent.put(message.SerializeToString())
        answers = call(iter(sent.get, None))
        assert next(answers)
        watched = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        assert next(watched) == b"\x08\x01"
    # Had they been cut off, this would raise.
    assert list(answers) == []
    assert list(watched) == [b"\x08\x02"]
    sent.put(None)
    channel.close()


def test_many_at_once_from_an_async_client(tiny: Server) -> None:
    async def ask() -> list[float]:
        async with triton_aio.InferenceServerClient(_address(tiny)) as client:
            calls = [
                client.infer("FP32", [given("x", np.full((1, 2), number, np.float32))])
                for number in range(50)
            ]
            return [answer.as_numpy("y")[0, 0] for answer in await asyncio.gather(*calls)]

    assert asyncio.run(ask()) == list(range(50))


def test_the_deadline_of_the_call_is_that_of_the_request(slow: tuple[Server, Faults]) -> None:
    server, faults = slow
    values = [given("x", np.zeros((1, 4), np.float32))]
    with triton.InferenceServerClient(_address(server)) as client, _busy(server, faults, client):
        with pytest.raises(InferenceServerException) as error:
            client.infer("m", values, client_timeout=0.2)
        assert error.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        assert _settled(client, "m").inference_stats.fail.count == 1


def test_a_client_that_goes_cancels_its_request(slow: tuple[Server, Faults]) -> None:
    server, faults = slow
    values = [given("x", np.zeros((1, 4), np.float32))]
    with triton.InferenceServerClient(_address(server)) as client, _busy(server, faults, client):
        call = client.async_infer("m", values, callback=lambda result, error: None)
        _until_unanswered(server, 3)
        call.cancel()
        assert _settled(client, "m").inference_stats.fail.count == 1


@contextmanager
def _busy(server: Server, faults: Faults, client: triton.InferenceServerClient) -> Iterator[None]:
    """Keep both processors busy with a request each; they are answered in the end."""
    values = [given("x", np.zeros((1, 4), np.float32))]
    answers: queue.Queue[Any] = queue.Queue()
    faults.hang(times=2)
    try:
        for count in (1, 2):
            client.async_infer("m", values, callback=lambda result, error: answers.put(error))
            _until_unanswered(server, count)
        assert faults.wait_until_hanging(2)
        yield
    finally:
        faults.release()
    assert [answers.get(timeout=20) for _ in range(2)] == [None, None]


def _until_unanswered(server: Server, count: int) -> None:
    engine = server.service.engine
    assert engine is not None
    until_s = time.monotonic() + 20
    while engine.n_unanswered != count:
        assert time.monotonic() < until_s
        time.sleep(0.005)


def _settled(client: triton.InferenceServerClient, model: str) -> Any:
    """Return the statistics once a failure is counted; the server hears of it a little later."""
    for _ in range(2000):
        [found] = client.get_inference_statistics(model).model_stats
        if found.inference_stats.fail.count:
            break
        time.sleep(0.01)
    return found


def test_health_is_told_to_probes(tiny: Server) -> None:
    health = pytest.importorskip("grpc_health.v1.health_pb2", reason="not installed")
    stubs = pytest.importorskip("grpc_health.v1.health_pb2_grpc", reason="not installed")
    with grpc.insecure_channel(_address(tiny)) as channel:
        stub = stubs.HealthStub(channel)
        ask = health.HealthCheckRequest
        assert stub.Check(ask()).status == health.HealthCheckResponse.SERVING
        watched = stub.Watch(ask(service="inference.GRPCInferenceService"))
        assert next(watched).status == health.HealthCheckResponse.SERVING
        watched.cancel()
        with pytest.raises(grpc.RpcError) as error:
            stub.Check(ask(service="no.such"))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


def test_tokens_are_asked_for() -> None:
    tenant = Tenant("a", "0123456789abcdef", rate_per_s=0.1)
    with (
        serving({"m": tiny_linear().model}, options=_options(tenants=[tenant])) as server,
        triton.InferenceServerClient(_address(server)) as client,
    ):
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException) as error:
            client.get_server_metadata()
        assert error.value.status() == "StatusCode.UNAUTHENTICATED"
        right = {"authorization": "Bearer 0123456789abcdef"}
        assert client.get_server_metadata(headers=right).name == "coinfer"
        values = [given("x", np.zeros((1, 4), np.float32))]
        client.infer("m", values, headers=right)
        with pytest.raises(InferenceServerException) as error:
            client.infer("m", values, headers=right)
        assert error.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_calls_may_be_encrypted(tmp_path: Path) -> None:
    tls = new_certificate(tmp_path)
    key, certificate = tls.key, tls.certificate
    values = [given("x", np.zeros((1, 4), np.float32))]
    options = _options(tls=replace(tls, client_authorities=certificate))
    with serving({"m": tiny_linear().model}, options=options) as server:
        address = f"localhost:{server.ports['grpc']}"
        own = {"root_certificates": str(certificate)}
        own |= {"private_key": str(key), "certificate_chain": str(certificate)}
        with triton.InferenceServerClient(address, ssl=True, **own) as client:
            assert client.infer("m", values).as_numpy("y").shape == (1, 3)
        with triton.InferenceServerClient(address, ssl=True) as stranger:
            assert not _is_live(stranger)
    key.write_text("no key")
    with pytest.raises(ConfigurationError, match=r"key.pem is not the key of .*certificate.pem"):
        Server(options).start()


def _is_live(client: triton.InferenceServerClient) -> bool:
    try:
        return bool(client.is_server_live(client_timeout=5))
    except InferenceServerException:
        return False


def test_a_port_is_not_shared_with_another_server(
    tiny: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ServeOptions(http=None, grpc=tiny.ports["grpc"])
    with pytest.raises(ConfigurationError, match="is in use"):
        Server(options).start()
    assert capfd.readouterr() == ("", "")


def test_typed_contents_are_read_and_checked(tiny: Server) -> None:
    cases = [
        ("INT8", [300], "numbers that are no INT8"),
        ("INT8", [1, 2], "has 2 elements"),
        ("FP16", [1], "has no typed contents"),
        ("FP32", [1], "is in fp32_contents, not in int_contents"),
    ]
    client = GrpcClient(_address(tiny))
    try:
        for datatype, numbers, why in cases:
            message = INFERENCE["ModelInferRequest"](model_name=datatype)
            tensor = message.inputs.add(name="x", datatype=datatype, shape=[1, 1])
            tensor.contents.int_contents.extend(numbers)
            code, text = client.try_call("ModelInfer", message)
            assert code == "INVALID_ARGUMENT"
            assert why in text
        tensor.datatype, message.model_name = "INT16", "INT16"
        assert client.call("ModelInfer", message).outputs[0].name == "y"
    finally:
        client.close()


def test_every_method_answers_or_says_that_it_is_not_offered(tiny: Server) -> None:
    client = GrpcClient(_address(tiny))
    try:
        codes = {name: client.try_call(name)[0] for name in METHODS if not METHODS[name].streams}
    finally:
        client.close()
    not_offered = {name for name, code in codes.items() if code == "UNIMPLEMENTED"}
    assert not_offered == {
        "CudaSharedMemoryStatus",
        "CudaSharedMemoryRegister",
        "CudaSharedMemoryUnregister",
        "TraceSetting",
        "LogSettings",
    }
    assert "INTERNAL" not in codes.values()
    assert "UNKNOWN" not in codes.values()


def test_a_message_that_is_none_is_the_fault_of_its_client(tiny: Server) -> None:
    with grpc.insecure_channel(_address(tiny)) as channel:
        for method in METHODS:
            if method in ("ModelInfer", "ModelStreamInfer"):
                continue
            call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            with pytest.raises(grpc.RpcError) as caught:
                call(b"\xff", timeout=30)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
