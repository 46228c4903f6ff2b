"""A scenario's load is sent when it is due, and counted as an engine's is."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httptools", reason="the extra `server` is not installed")
pytest.importorskip("grpc", reason="the extra `server` is not installed")

from coinfer.core.request import Outcome
from coinfer.errors import ConfigurationError
from coinfer.load_test.call import Answered, Call
from coinfer.load_test.grpc_sender import GrpcSender
from coinfer.load_test.http_sender import HttpSender
from coinfer.load_test.play import play_on_server
from coinfer.load_test.remote import Remote
from coinfer.metrics.recorder import Recorder
from coinfer.runtime import clock
from coinfer.server.serving import ServeOptions
from coinfer.testing.models import tiny_linear
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import parse_scenario
from server.servers import serving

X = {"x": np.ones((1, 4), np.float32)}


class FakeSender:
    """Answers as it is told, in turn; keeps what it was asked."""

    def __init__(self, *answers: Answered) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.is_closed = False
        self._answers = answers or (Answered(Outcome.COMPLETED),)

    def prepared(self, model: str, feed: Any) -> Call:
        return Call(model, b"", b"")

    async def inputs(self, model: str) -> dict[str, str]:
        return {"x": "FP32"}

    async def send(self, call: Call, parameters: Mapping[str, Any]) -> Answered:
        answer = self._answers[len(self.asked) % len(self._answers)]
        self.asked.append((call.model, parameters))
        await asyncio.sleep(0)
        return answer

    async def close(self) -> None:
        self.is_closed = True


def _scenario(arrivals: str, model: str = "{source: x.onnx}", more: str = "") -> Scenario:
    text = f"models: {{m: {model}}}\narrivals: {arrivals}\n{more}"
    return parse_scenario(text)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_request_that_is_due_is_answered(protocol: str) -> None:
    options = ServeOptions(http=0, grpc=0)
    with serving({"m": tiny_linear().model}, options=options) as server:
        port = server.ports[protocol]
        made = {"http": HttpSender, "grpc": GrpcSender}[protocol](f"127.0.0.1:{port}")
        scenario = _scenario("{offline: {counts: {m: 200}}}")
        done = play_on_server(scenario, {"m": [X]}, made)
        said = server.service.model_statistics("m")["model_stats"][0]
    counts = done.run_counts.models["m"]
    assert (counts.submitted, counts.completed, counts.served) == (200, 200, 200)
    assert said["inference_count"] == 200
    assert not done.unanswered


def test_an_open_loop_does_not_wait_for_answers() -> None:
    sender = FakeSender()
    scenario = _scenario("{m: {periodic: 200/s}}", more="duration: 0.2s\nwarmup: 0s\n")
    counts = play_on_server(scenario, {"m": [X]}, sender).run_counts.models["m"]
    assert counts.completed == 40
    assert sender.is_closed


def test_latency_counts_from_when_a_request_was_due() -> None:
    remote = Remote(FakeSender())
    try:
        remote.prepare({"m": [X]})
        remote.recorder = Recorder()
        remote.submit("m", X, due_s=clock.now() - 5.0).result(10)
        counts = remote.recorder.run_counts(clock.now()).models["m"]
    finally:
        remote.close()
    assert counts.latencies.quantile_s(0.5) >= 5.0


def test_a_deadline_is_sent_as_what_is_left_of_it() -> None:
    sender = FakeSender()
    remote = Remote(sender)
    try:
        remote.prepare({"m": [X]})
        now = clock.now()
        for on_late, due_s in (
            ("drop", now),
            ("drop", now - 9.0),
            ("drop", now - 99),
            ("run", now),
        ):
            remote.submit("m", X, deadline_s=10.0, on_late=on_late, due_s=due_s).result(10)
    finally:
        remote.close()
    whole, rest, late, run = [parameters.get("timeout") for _, parameters in sender.asked]
    assert 1_000_000 < whole <= 10_000_000
    assert 1 <= rest <= 1_000_000
    assert late == 1
    assert run is None


def test_outcomes_are_counted_apart() -> None:
    answers = [Answered(each, "why") for each in Outcome if each is not Outcome.COMPLETED]
    sender = FakeSender(Answered(Outcome.COMPLETED), *answers)
    scenario = _scenario("{offline: {counts: {m: 50}}}")
    counts = play_on_server(scenario, {"m": [X]}, sender).run_counts.models["m"]
    assert counts.completed == 10
    assert counts.others == {
        outcome: 0 if outcome is Outcome.COMPLETED else 10 for outcome in Outcome
    }


def test_a_closed_loop_goes_on_after_a_failure() -> None:
    sender = FakeSender(Answered(Outcome.FAILED, "why"))
    scenario = _scenario("{m: {closed: 2}}", more="duration: 0.1s\nwarmup: 0s\n")
    counts = play_on_server(scenario, {"m": [X]}, sender).run_counts.models["m"]
    assert counts.submitted > 10
    assert counts.others[Outcome.FAILED] == counts.submitted


def test_a_server_that_is_none_or_serves_something_else_is_named() -> None:
    scenario = _scenario("{m: {closed: 1}}")
    with pytest.raises(ConfigurationError, match="does not answer"):
        play_on_server(scenario, {"m": [X]}, HttpSender("127.0.0.1:9"))
    options = ServeOptions(http=0, grpc=0)
    with serving({"other": tiny_linear().model}, options=options) as server:
        http, grpc = (f"127.0.0.1:{server.ports[name]}" for name in ("http", "grpc"))
        for sender in (HttpSender(http), GrpcSender(grpc)):
            with pytest.raises(ConfigurationError, match="does not serve model 'm'"):
                play_on_server(scenario, {"m": [X]}, sender)
        wrong = {"x": np.ones((1, 4))}
        other = parse_scenario("models: {other: a.onnx}\narrivals: {other: {closed: 1}}")
        with pytest.raises(ConfigurationError, match=r"takes FP32 x, and .* FP64 x"):
            play_on_server(other, {"other": [wrong]}, HttpSender(http))


@contextmanager
def _canned(*answers: bytes) -> Iterator[str]:
    """Answer each request with the next of these, and at an empty one close the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        left = list(answers)

        def serve() -> None:
            while left:
                connection, _ = listening.accept()
                with connection:
                    while left and connection.recv(65536):
                        answer = left.pop(0)
                        if not answer:
                            break
                        connection.sendall(answer)
                        if b"close" in answer:
                            break

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def _answer(status: int, body: bytes = b'{"error": "why not"}', more: str = "") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def test_each_status_is_an_outcome() -> None:
    statuses = (200, 429, 503, 504, 499, 400, 500)
    closing = _answer(200, more="Connection: close\r\n")
    with _canned(*map(_answer, statuses), b"garbage\r\n\r\n", closing, _answer(200)) as address:
        found = asyncio.run(_sent(address, len(statuses) + 3))
    assert [each.outcome for each in found] == [
        Outcome.COMPLETED,
        Outcome.REJECTED,
        Outcome.REJECTED,
        Outcome.DROPPED,
        Outcome.CANCELLED,
        Outcome.FAILED,
        Outcome.FAILED,
        Outcome.FAILED,
        Outcome.COMPLETED,
        Outcome.COMPLETED,
    ]
    assert found[5].reason == "status 400: why not"


def test_an_idle_connection_that_the_server_closed_is_replaced_once() -> None:
    with _canned(_answer(200), b"", _answer(200)) as address:
        found = asyncio.run(_sent(address, 2))
    assert Counter(each.outcome for each in found) == {Outcome.COMPLETED: 2}


async def _sent(address: str, count: int) -> list[Answered]:
    sender = HttpSender(address)
    call = sender.prepared("m", X)
    found = [await sender.send(call, {"timeout": 5}) for _ in range(count)]
    await sender.close()
    return found
