"""What the HTTP front end takes and refuses, byte by byte."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from coinfer.backends.null import Faults, NullBackend
from coinfer.server.access import Tenant
from coinfer.server.limits import ServerLimits
from coinfer.server.serving import ServeOptions, Server
from coinfer.testing.models import tiny_linear
from server.servers import echo, serving

LINEAR = {"linear": tiny_linear().model}


class Answer:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


def ask(
    server: Server,
    method: str,
    path: str,
    body: bytes | Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    port: str = "http",
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.ports[port], timeout=30)
    try:
        data = json.dumps(body).encode() if isinstance(body, Mapping) else body
        connection.request(method, path, data, dict(headers or {}))
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())
    finally:
        connection.close()


def infer(server: Server, model: str, body: Any, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(server, "POST", f"/v2/models/{model}/infer", body, named)


def x(data: Any = (1, 2, 3), shape: Any = (1, 3), datatype: str = "FP32") -> dict[str, Any]:
    tensor = {"name": "x", "datatype": datatype, "shape": list(shape), "data": data}
    return {"inputs": [tensor]}


def binary(raw: bytes, *, size: Any = None, shape: Any = (1, 3), datatype: str = "FP32") -> bytes:
    parameters = {"binary_data_size": len(raw) if size is None else size}
    tensor = {"name": "x", "datatype": datatype, "shape": list(shape), "parameters": parameters}
    return json.dumps({"inputs": [tensor]}).encode()


def test_versions_are_in_the_path(tiny_server: Server) -> None:
    assert ask(tiny_server, "GET", "/v2/models/linear/versions/1").json["versions"] == ["1"]
    assert ask(tiny_server, "GET", "/v2/models/linear/versions/1/ready").status == 200
    assert ask(tiny_server, "GET", "/v2/models/linear/versions/2/ready").status == 404
    found = ask(tiny_server, "POST", "/v2/models/FP32/versions/1/infer", x())
    assert found.json["outputs"][0]["data"] == [1, 2, 3]
    assert ask(tiny_server, "POST", "/v2/models/FP32/versions/7/infer", x()).status == 404
    assert ask(tiny_server, "GET", "/v2/models/linear/versions/1/stats").json["model_stats"]
    assert len(ask(tiny_server, "GET", "/v2/models/stats").json["model_stats"]) > 5


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", "has no 'inputs'"),
        ({"inputs": 3}, "'inputs' must be a list"),
        ({"inputs": [3]}, "each input must be an object"),
        ({"inputs": [{}]}, "needs a 'name'"),
        ({"inputs": [{"name": "x"}]}, "must be a list of sizes"),
        (x(shape=[1, -3]), "a number from 0"),
        (x(shape=[1, 3.5]), "a number from 0"),
        (x(shape=[True, 3]), "a number from 0"),
        (x(datatype="FP31"), "unknown datatype 'FP31'"),
        (x(datatype="FP16"), "send it as binary data"),
        (x(data=[1, 2]), "2 elements, but shape"),
        (x(data=[[1, 2], [3]]), "differ in length"),
        (x(data=["a", "b", "c"]), "are not FP32"),
        (x(data=[None, 1, 2]), "are not FP32"),
        (x(data=[1.5, 2, 3], datatype="INT8"), "are not INT8"),
        (x(data=[1, 2, 300], datatype="INT8"), "beyond INT8"),
        (x(data=[1, 2, -3], datatype="UINT64"), "beyond UINT64"),
        (x(data=[1, 2, 2**64], datatype="UINT64"), "UINT64"),
        (x(data=[True, 2, 3]), "are not FP32"),
        (x(data=[["a" * 60_000], *([""] for _ in range(60_000))]), "are not FP32"),
        (x(data=["a" * 60_000, *([""] * 60_000)]), "are not FP32"),
        (x(data=[1, 0, 1], datatype="BOOL"), "are not BOOL"),
        (x(data=[1, 2, 3], datatype="BYTES"), "are not texts"),
        (x(data={}), "'data' must be a list"),
        ({**x(), "id": 5}, "'id' must be a text"),
        ({**x(), "parameters": [1]}, "'parameters' must be an object"),
        ({**x(), "parameters": {"priority": -1}}, "'priority' must be a whole number"),
        ({**x(), "parameters": {"timeout": "soon"}}, "'timeout' must be a whole number"),
        ({**x(), "outputs": [{"name": "y"}, {"name": "y"}]}, "asked for twice"),
        ({"inputs": x()["inputs"] * 2}, "have the same name"),
    ],
)
def test_a_malformed_request_is_refused(tiny_server: Server, body: Any, why: str) -> None:
    answer = infer(tiny_server, "FP32", body)
    assert answer.status == 400
    assert why in answer.error


def test_what_is_too_much_is_refused(tiny_server: Server) -> None:
    many = infer(tiny_server, "FP32", {"inputs": x()["inputs"] * 300})
    assert (many.status, "at most 256" in many.error) == (413, True)
    deep = infer(tiny_server, "FP32", x(shape=[1] * 40))
    assert (deep.status, "at most 32" in deep.error) == (413, True)
    wide = infer(tiny_server, "FP32", x(shape=[2**40, 2**40]))
    assert (wide.status, "too large" in wide.error) == (413, True)
    rows = infer(tiny_server, "FP32", x(data=[0] * 3075, shape=[1025, 3]))
    assert (rows.status, "at most 1024" in rows.error) == (413, True)


RAW = np.array([1, 2, 3], np.float32).tobytes()


@pytest.mark.parametrize(
    ("head", "raw", "why"),
    [
        (binary(RAW), RAW[:-1], "only 11 are left"),
        (binary(RAW), RAW + b"!", "belong to no tensor"),
        (binary(RAW, size=8), RAW[:8], "takes 12"),
        (binary(RAW, size=-1), RAW, "a number from 0"),
        (binary(RAW, size=2**63), RAW, "are left"),
        (binary(RAW, size="12"), RAW, "a number from 0"),
        (binary(b"\x02" * 3, datatype="BOOL"), b"\x02" * 3, "must be 0 or 1"),
        (binary(b"abc", datatype="BYTES"), b"abc", "cannot hold 3 texts"),
    ],
)
def test_sizes_of_binary_tensors_are_checked(
    tiny_server: Server, head: bytes, raw: bytes, why: str
) -> None:
    length = str(len(head))
    answer = infer(tiny_server, "FP32", head + raw, Inference_Header_Content_Length=length)
    assert answer.status == 400
    assert why in answer.error


@pytest.mark.parametrize("length", ["-1", "many", "99999", "9" * 30])
def test_the_length_of_the_header_is_checked(tiny_server: Server, length: str) -> None:
    answer = infer(tiny_server, "FP32", binary(RAW) + RAW, Inference_Header_Content_Length=length)
    assert answer.status == 400


@pytest.mark.parametrize(
    ("lengths", "why"),
    [
        ([2**32 - 1, 0, 0], "only 8 are left"),
        ([0, 0, 9], "only 0 are left"),
    ],
)
def test_lengths_of_texts_are_checked(tiny_server: Server, lengths: list[int], why: str) -> None:
    raw = b"".join(struct.pack("<I", each) for each in lengths)
    head = binary(raw, datatype="BYTES")
    answer = infer(tiny_server, "BYTES", head + raw, Inference_Header_Content_Length=str(len(head)))
    assert answer.status == 400
    assert why in answer.error


def test_an_output_may_be_binary_and_another_not(tiny_server: Server) -> None:
    wanted = {"name": "y", "parameters": {"binary_data": True}}
    answer = infer(tiny_server, "FP32", {**x(), "outputs": [wanted]})
    length = int(answer.headers["inference-header-content-length"])
    head = json.loads(answer.body[:length])
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 12}
    assert answer.body[length:] == RAW


def test_large_tensors_come_back_in_one_piece(tiny_server: Server) -> None:
    values = np.arange(300_000, dtype=np.float32).reshape(1, -1)
    head = binary(values.tobytes(), shape=values.shape)
    body = json.loads(head) | {"parameters": {"binary_data_output": True}}
    head = json.dumps(body).encode()
    answer = infer(
        tiny_server,
        "FP32",
        head + values.tobytes(),
        Inference_Header_Content_Length=str(len(head)),
    )
    length = int(answer.headers["inference-header-content-length"])
    assert answer.body[length:] == values.tobytes()


def test_a_packed_body_is_unpacked_within_limits(tiny_server: Server) -> None:
    data = gzip.compress(json.dumps(x()).encode())
    assert infer(tiny_server, "FP32", data, Content_Encoding="gzip").status == 200
    assert infer(tiny_server, "FP32", b"no", Content_Encoding="gzip").status == 400
    assert infer(tiny_server, "FP32", data[:-9], Content_Encoding="gzip").status == 400
    assert infer(tiny_server, "FP32", data, Content_Encoding="br").status == 400


def test_a_body_beyond_the_limit_is_refused_packed_or_not() -> None:
    options = ServeOptions(http=0, limits=ServerLimits(body_bytes=10_000))
    with serving({"e": echo("FP32")}, options=options) as server:
        large = json.dumps(x(data=[0] * 30_000, shape=[1, 30_000])).encode()
        assert infer(server, "e", large).status == 413
        assert infer(server, "e", gzip.compress(large), Content_Encoding="gzip").status == 413
        assert infer(server, "e", x()).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v3", 404),
        ("GET", "/v2/models/linear/nothing", 404),
        ("GET", "/v2/nothing/infer", 404),
        ("GET", "/v2/cudasharedmemory/status", 501),
        ("POST", "/v2/trace/setting", 501),
        ("GET", "/v2/systemsharedmemory/region/x/status", 404),
        ("GET", "/", 200),
        ("GET", "/state", 200),
        ("GET", "/metrics", 200),
    ],
)
def test_what_is_not_there(tiny_server: Server, method: str, path: str, status: int) -> None:
    assert ask(tiny_server, method, path).status == status


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v2/models/linear/infer", "POST"),
        ("PUT", "/v2/models/linear/versions/1/infer", "POST"),
        ("DELETE", "/v2/models/linear", "GET, HEAD"),
        ("POST", "/v2/models/linear/config", "GET, HEAD"),
        ("POST", "/v2", "GET, HEAD"),
        ("POST", "/v2/health/ready", "GET, HEAD"),
        ("GET", "/v2/repository/index", "POST"),
        ("GET", "/v2/repository/models/linear/load", "POST"),
        ("POST", "/v2/systemsharedmemory/status", "GET, HEAD"),
        ("GET", "/v2/systemsharedmemory/region/x/register", "POST"),
        ("PATCH", "/v2/logging", "GET, HEAD, POST"),
        ("POST", "/metrics", "GET, HEAD"),
        ("OPTIONS", "/", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_which_is_right(
    tiny_server: Server, method: str, path: str, allowed: str
) -> None:
    answer = ask(tiny_server, method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)
    assert f"there is no {method} for {path}" in answer.error


def test_a_header_asks_why_a_request_went_where_it_went(tiny_server: Server) -> None:
    answer = infer(tiny_server, "FP32", x(), X_Coinfer_Explain="1")
    said = json.loads(answer.headers["x-coinfer-explain"])
    assert said["executions"][0]["processor"] in ("p0", "p1")
    assert said["policy"] == "earliest_finish"
    assert json.loads(answer.json["parameters"]["coinfer_explain"]) == said
    assert "x-coinfer-explain" not in infer(tiny_server, "FP32", x()).headers


def test_metrics_count_what_was_asked() -> None:
    options = ServeOptions(http=0, metrics=0, has_triton_metrics=True)
    with serving({"e": echo("FP32")}, options=options) as server:
        for _ in range(3):
            infer(server, "e", x())
        infer(server, "e", x(datatype="FP64"))
        text = ask(server, "GET", "/metrics", port="metrics").body.decode()
        page = ask(server, "GET", "/", port="metrics")
        state = ask(server, "GET", "/state").json
    assert 'coinfer_requests_total{model="e",outcome="completed",version="1"} 3.0' in text
    assert 'nv_inference_request_success{model="e",version="1"} 3.0' in text
    assert 'nv_inference_request_failure{model="e",reason="OTHER",version="1"} 1.0' in text
    assert 'coinfer_policy{policy="earliest_finish"} 1.0' in text
    assert "coinfer_policy_changes_total 0.0" in text
    assert page.status == 404
    assert state["models"][0]["completed"] == 3


class TestTokens:
    TOKEN = "0123456789abcdef"

    @pytest.fixture
    def guarded(self) -> Iterator[Server]:
        tenants = [Tenant("all", self.TOKEN), Tenant("few", "f" * 16, rate_per_s=0.001)]
        with serving({"e": echo("FP32")}, options=ServeOptions(http=0, tenants=tenants)) as made:
            yield made

    def test_without_a_token_only_health_is_told(self, guarded: Server) -> None:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": self.TOKEN}):
            answer = ask(guarded, "GET", "/v2", headers=headers)
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert ask(guarded, "GET", "/v2/health/ready").status == 200

    def test_with_a_token_all_is(self, guarded: Server) -> None:
        headers = {"Authorization": f"Bearer {self.TOKEN}"}
        assert ask(guarded, "GET", "/v2", headers=headers).status == 200
        assert ask(guarded, "POST", "/v2/models/e/infer", x(), headers).status == 200

    def test_who_asks_too_often_is_told_when_to_ask_again(self, guarded: Server) -> None:
        headers = {"Authorization": f"Bearer {'f' * 16}"}
        statuses = [
            ask(guarded, "POST", "/v2/models/e/infer", x(), headers).status for _ in range(2)
        ]
        assert statuses == [200, 429]
        answer = ask(guarded, "POST", "/v2/models/e/infer", x(), headers)
        assert 900 < int(answer.headers["retry-after"]) <= 1000


class TestSlowModel:
    """One whose runs last until the test lets them go."""

    @pytest.fixture
    def slow(self) -> Iterator[tuple[Server, Faults]]:
        faults = Faults()
        backends = {"null": NullBackend(faults=faults)}
        made = serving(LINEAR, backend="null", backends=backends)
        with made as server:
            try:
                yield server, faults
            finally:
                faults.release()

    BODY: Any = x(data=[0] * 4, shape=[1, 4])

    def test_a_deadline_that_cannot_be_met_is_refused(self, slow: tuple[Server, Faults]) -> None:
        server, _ = slow
        answer = infer(server, "linear", self.BODY, X_Coinfer_Deadline="1ns")
        assert answer.status == 504
        late = {**self.BODY, "parameters": {"timeout": 1}}
        assert infer(server, "linear", late).status == 504
        assert infer(server, "linear", self.BODY, X_Coinfer_Deadline="1s").status == 200
        wrong = infer(server, "linear", self.BODY, X_Coinfer_Deadline="never")
        assert (wrong.status, "X-Coinfer-Deadline" in wrong.error) == (400, True)

    def test_a_client_that_goes_cancels_its_request(self, slow: tuple[Server, Faults]) -> None:
        server, faults = slow
        engine = server.service.engine
        assert engine is not None
        faults.hang(model="linear", times=2)
        try:
            data = json.dumps(self.BODY).encode()
            head = (
                f"POST /v2/models/linear/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}"
            )
            gone = []
            for _ in range(3):  # two run, one waits
                one = socket.create_connection(("127.0.0.1", server.ports["http"]))
                one.sendall(head.encode() + b"\r\n\r\n" + data)
                gone.append(one)
                _until(lambda: engine.n_unanswered == len(gone))
            gone[2].close()
            _until(lambda: engine.stats().models["linear"].cancelled == 1)
        finally:
            faults.release()
            for one in gone:
                one.close()

    def test_what_was_taken_is_answered_before_the_end(self, slow: tuple[Server, Faults]) -> None:
        server, faults = slow
        engine = server.service.engine
        assert engine is not None
        faults.hang(model="linear", times=1)
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.append(infer(server, "linear", self.BODY)))
        asking.start()
        _until(lambda: engine.n_unanswered == 1)
        closing = threading.Thread(target=server.close)
        closing.start()
        _until(lambda: not server.service.is_ready)
        faults.release()
        closing.join(20)
        asking.join(20)
        assert [answer.status for answer in answers] == [200]


def test_before_the_models_are_loaded_it_is_live_and_not_ready() -> None:
    with Server(ServeOptions(http=0)) as server:
        assert ask(server, "GET", "/v2/health/live").status == 200
        assert ask(server, "GET", "/v2/health/ready").status == 503
        answer = infer(server, "linear", x())
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert ask(server, "GET", "/metrics").status == 200
        assert ask(server, "GET", "/state").json["ready"] is False


def _until(is_so: Any) -> None:
    until_s = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.002)


def test_of_an_empty_batch_there_is_nothing_to_classify() -> None:
    outputs = [{"name": "y", "parameters": {"classification": 2}}]
    with serving(LINEAR, backend="null") as server:
        answer = infer(server, "linear", {**x([], shape=(0, 4)), "outputs": outputs})
    assert answer.status == 200
    assert answer.json["outputs"][0]["shape"] == [0, 2]
