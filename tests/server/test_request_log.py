"""A line of the log for each request, and nobody who answers requests waits for its reader."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from coinfer.backends.null import Faults, NullBackend
from coinfer.server.access import Tenant
from coinfer.server.opening import Opened
from coinfer.server.served_model import served
from coinfer.server.serving import ServeOptions, Server
from coinfer.server.telemetry.lines import request_line
from coinfer.server.telemetry.record import RequestRecord
from coinfer.server.telemetry.writer import LogWriter, into_descriptor
from coinfer.testing.models import tiny_linear
from server.servers import engine_of, until
from server.test_http import ask, infer, x

MODEL = tiny_linear().model
BODY: Any = x(data=[0] * 4, shape=[1, 4])
TOKEN = "0123456789abcdef"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Told(list[RequestRecord]):
    def last(self, count: int) -> RequestRecord:
        """Return the last once so many were told: a client may have its answer before that."""
        until(lambda: len(self) >= count)
        assert len(self) == count
        return self[-1]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def server(told: Told) -> Iterator[Server]:
    tenants = [Tenant("team", TOKEN), Tenant("few", "f" * 16, rate_per_s=0.001)]
    options = ServeOptions(http=0, grpc=0, tenants=tenants)
    with Server(options, listeners=[told.append]) as made:
        models = [served("m", MODEL, version="3")]
        made.open(Opened(engine=engine_of({"m": MODEL}, backend="null"), models=models))
        yield made


def test_a_request_is_told_with_what_became_of_it(server: Server, told: Told) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "traceparent": PARENT}
    body = {**BODY, "id": "seven"}
    assert ask(server, "POST", "/v2/models/m/infer", body, headers).status == 200
    record = told.last(1)
    assert (record.transport, record.call, record.id) == ("http", "infer", "seven")
    assert (record.model, record.version, record.tenant) == ("m", "3", "team")
    assert (record.status, record.kind, record.reason) == (200, "", "")
    assert record.trace_id == PARENT.split("-")[1]
    assert record.queue_s is not None
    assert record.compute_s is not None
    assert 0 <= record.queue_s + record.compute_s <= record.total_s
    for form in ("text", "json"):
        assert TOKEN not in request_line(record, form)


def test_a_refused_request_is_told_with_the_reason(server: Server, told: Told) -> None:
    assert infer(server, "m", BODY).status == 401
    record = told.last(1)
    assert (record.status, record.tenant, record.queue_s) == (401, "", None)
    assert "wants a token" in record.reason
    few = {"Authorization": f"Bearer {'f' * 16}"}
    for _ in range(2):
        ask(server, "POST", "/v2/models/m/infer", BODY, few)
    record = told.last(3)
    assert (record.status, record.kind, record.tenant) == (429, "REJECTED", "few")
    assert told[1].id != told[2].id  # names that were made


def test_other_calls_are_told_too(server: Server, told: Told) -> None:
    assert ask(server, "GET", "/v2/health/ready?secret=1").status == 200
    record = told.last(1)
    assert (record.call, record.status) == ("GET /v2/health/ready", 200)


def test_requests_over_grpc_are_told(server: Server, told: Told) -> None:
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
    import numpy as np

    given = triton.InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(np.zeros((1, 4), np.float32))
    sent = {"authorization": f"Bearer {TOKEN}", "traceparent": PARENT}
    with triton.InferenceServerClient(f"127.0.0.1:{server.ports['grpc']}") as client:
        client.infer("m", [given], request_id="8", headers=sent)
        record = told.last(1)
        assert (record.call, record.id, record.status) == ("ModelInfer", "8", "OK")
        assert (record.model, record.version, record.tenant) == ("m", "3", "team")
        assert record.trace_id == PARENT.split("-")[1]
        assert record.compute_s is not None
        with pytest.raises(triton.InferenceServerException):
            client.infer("absent", [given], headers=sent)
        record = told.last(2)
        assert (record.model, record.status) == ("absent", "NOT_FOUND")
        with pytest.raises(triton.InferenceServerException):
            client.get_server_metadata()
        record = told.last(3)
        assert (record.call, record.status) == ("ServerMetadata", "UNAUTHENTICATED")
        answered = threading.Event()
        client.start_stream(lambda result, error: answered.set(), headers=sent)
        client.async_stream_infer("m", [given], request_id="9")
        assert answered.wait(20)
        record = told.last(4)
        assert (record.call, record.id, record.status) == ("ModelStreamInfer", "9", "OK")
        client.stop_stream()


def test_a_client_that_goes_is_told(told: Told) -> None:
    faults = Faults()
    engine = engine_of({"m": MODEL}, backend="null", backends={"null": NullBackend(faults=faults)})
    with Server(ServeOptions(http=0), listeners=[told.append]) as server:
        server.open(Opened(engine=engine, models=[served("m", MODEL)]))
        faults.hang(model="m")
        data = json.dumps(BODY).encode()
        head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        try:
            with socket.create_connection(("127.0.0.1", server.ports["http"])) as client:
                client.sendall(head.encode() + data)
                until(lambda: engine.n_unanswered > 0)
            assert told.last(1).status == 499
        finally:
            faults.release()


def test_what_clients_send_is_escaped_and_cut() -> None:
    evil = 'a"\r\n\x1b[2J\u202e\ud800 status=200' + "b" * 1000
    record = RequestRecord(transport="http", call=f"GET /{evil}", at_ns=0, began_s=0.0, id=evil)
    record.model = record.tenant = record.reason = evil
    record.status = 400
    for form in ("text", "json"):
        line = request_line(record, form)
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 3000
    assert json.loads(request_line(record, "json"))["id"].startswith('a"\r\n')
    assert request_line(record, "text").count(" status=") == 1 + 5  # one is ours
    assert " status=400" in request_line(record, "text")


def test_messages_have_a_line_each_with_the_request() -> None:
    lines: list[str] = []
    for form in ("text", "json"):
        writer = LogWriter(lines.append, form)
        writer.start()
        record = logging.LogRecord("a.b", logging.ERROR, "", 0, "it\n%s", ("broke",), None)
        record.request_id = "7"
        writer.emit(record)
        writer.end(20)
    assert lines[0] == "coinfer: error: it broke (request 7)\n"
    said = json.loads(lines[1])
    assert (said["level"], said["message"], said["request_id"]) == ("error", "it\nbroke", "7")


def test_who_logs_does_not_wait_for_the_reader() -> None:
    reader, written = os.pipe()
    writer = LogWriter(into_descriptor(written), "json")
    writer.start()
    try:
        for number in range(12_000):  # nobody reads, and a pipe holds a few hundred of them
            writer.tell(RequestRecord(transport="http", call=str(number), at_ns=0, began_s=0.0))
        writer.end(0.05)  # nor does the end wait
        n_requests = n_dropped = 0
        with os.fdopen(reader, encoding="ascii") as lines:
            while n_requests + n_dropped < 12_000:
                said = json.loads(next(lines))
                if said["event"] == "message":
                    assert "lines were dropped" in said["message"]
                    n_dropped += int(said["message"].split()[0])
                else:
                    n_requests += 1
        assert n_requests >= 10_000
        assert n_dropped > 0
    finally:
        os.close(written)


def test_a_reader_that_went_away_is_no_error() -> None:
    reader, written = os.pipe()
    os.close(reader)
    writer = LogWriter(into_descriptor(written))
    writer.start()
    writer.say("hello")
    writer.end(20)
    os.close(written)
