"""Inferences as spans of OpenTelemetry: children of what clients say, with the engine's times."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra `otel`")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from coinfer.errors import BackendError, ConfigurationError
from coinfer.server.opening import Opened
from coinfer.server.served_model import served
from coinfer.server.serving import ServeOptions, Server
from coinfer.server.telemetry.otlp import exporting_spans
from coinfer.server.telemetry.record import RequestRecord
from coinfer.server.telemetry.spans import Spans
from coinfer.testing.models import tiny_linear
from server.servers import engine_of
from server.test_http import ask, infer, x
from server.test_request_log import Told

MODEL = tiny_linear().model
BODY: Any = x(data=[0] * 4, shape=[1, 4])
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Spans:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Spans(provider)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def server(spans: Spans, told: Told) -> Iterator[Server]:
    options = ServeOptions(http=0, grpc=0)
    with Server(options, listeners=[spans.tell, told.append]) as made:
        engine = engine_of({"m": MODEL}, backend="null")
        made.open(Opened(engine=engine, models=[served("m", MODEL)]))
        yield made


def three(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, ReadableSpan, ReadableSpan]:
    found = {span.name.split()[0]: span for span in exporter.get_finished_spans()}
    return found["infer"], found["queue"], found["compute"]


def check(exporter: InMemorySpanExporter, record: RequestRecord) -> None:
    whole, queue, compute = three(exporter)
    assert whole.kind is SpanKind.SERVER
    for part in (queue, compute):
        assert part.parent is not None
        assert part.parent.span_id == whole.context.span_id
        assert part.context.trace_id == whole.context.trace_id
    moments = (whole.start_time, queue.start_time, queue.end_time, compute.end_time, whole.end_time)
    assert list(moments) == sorted(moments)  # type: ignore[type-var]
    assert queue.end_time == compute.start_time
    assert record.compute_s is not None
    assert compute.end_time is not None
    assert compute.start_time is not None
    took_s = (compute.end_time - compute.start_time) / 1e9
    assert took_s == pytest.approx(record.compute_s, abs=1e-8)
    assert f"{whole.context.trace_id:032x}" == record.trace_id


def test_an_inference_is_a_child_of_its_traceparent(
    server: Server, told: Told, exporter: InMemorySpanExporter
) -> None:
    parent = f"00-{TRACE}-{PARENT}-01"
    sent = {**BODY, "id": "7"}
    assert infer(server, "m", sent, traceparent=parent, tracestate="a=b").status == 200
    check(exporter, told.last(1))
    whole, *_ = three(exporter)
    assert whole.name == "infer m"
    assert whole.parent is not None
    assert (f"{whole.parent.span_id:016x}", told[0].trace_id) == (PARENT, TRACE)
    assert whole.context.trace_state["a"] == "b"
    assert whole.attributes is not None
    assert whole.attributes["coinfer.request.id"] == "7"
    assert whole.attributes["http.response.status_code"] == 200


def test_a_parent_that_was_not_sampled_makes_no_span(
    server: Server, told: Told, exporter: InMemorySpanExporter
) -> None:
    infer(server, "m", BODY, traceparent=f"00-{TRACE}-{PARENT}-00")
    assert told.last(1).trace_id == TRACE
    assert not exporter.get_finished_spans()


@pytest.mark.parametrize("parent", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01"])
def test_without_a_parent_a_trace_begins(
    server: Server, told: Told, exporter: InMemorySpanExporter, parent: str
) -> None:
    infer(server, "m", BODY, **({"traceparent": parent} if parent else {}))
    check(exporter, told.last(1))
    assert three(exporter)[0].parent is None


def test_the_metadata_of_grpc_have_the_parent(
    server: Server, told: Told, exporter: InMemorySpanExporter
) -> None:
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
    given = triton.InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(np.zeros((1, 4), np.float32))
    with triton.InferenceServerClient(f"127.0.0.1:{server.ports['grpc']}") as client:
        client.infer("m", [given], headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    record = told.last(1)
    check(exporter, record)
    assert record.trace_id == TRACE


def test_a_refused_request_has_one_span_and_only_inferences_have_any(
    server: Server, told: Told, exporter: InMemorySpanExporter
) -> None:
    infer(server, "absent", BODY)
    ask(server, "GET", "/v2/health/ready")
    told.last(2)
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.status.status_code) == ("infer", StatusCode.UNSET)
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 404
    server.service.close()
    infer(server, "m", BODY)
    told.last(3)
    assert exporter.get_finished_spans()[-1].status.status_code is StatusCode.ERROR


def test_they_are_sent_over_otlp() -> None:
    came: list[tuple[str, bytes]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            spans = exporting_spans(f"http://127.0.0.1:{collector.server_port}")
            record = RequestRecord(
                transport="http", call="infer", at_ns=1, began_s=0.0, number=1, model="m"
            )
            spans.tell(record)
            spans.close(20)
        finally:
            collector.shutdown()
            thread.join()
    ((path, body),) = came
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    names = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert names["service.name"] == "coinfer"
    assert [span.name for span in resource.scope_spans[0].spans] == ["infer m"]


def test_what_cannot_be_an_endpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("127.0.0.1:4318", "grpc://a:1", "http://", "http://a:b"):
        with pytest.raises(ConfigurationError, match="is no address"):
            exporting_spans(wrong)
    with monkeypatch.context() as patched:
        patched.setattr("importlib.util.find_spec", lambda _: None)
        with pytest.raises(BackendError, match=r"coinfer\[otel\]"):
            exporting_spans("http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(BackendError, match="over HTTP only"):
        exporting_spans(None)
