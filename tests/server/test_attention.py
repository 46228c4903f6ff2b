"""The threads that take requests perform brief runs themselves, and share what comes together."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Self
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
grpc = pytest.importorskip("grpc", reason="the extra `server` is not installed")

from grpc._cython.cygrpc import CompletionType  # noqa: E402

from coinfer.server.grpc.core_server import is_offered  # noqa: E402
from coinfer.server.messages import INFERENCE, METHODS  # noqa: E402
from coinfer.server.opening import Opened  # noqa: E402
from coinfer.server.served_model import served  # noqa: E402
from coinfer.server.serving import ServeOptions, Server  # noqa: E402
from runtime.noting import FEED, LONG_S, MODEL, Noting, noting_engine  # noqa: E402

BODY = {
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": FEED["x"].ravel().tolist()}
    ]
}


class Asked:
    """A server of a model `m`, and the threads that performed its runs."""

    def __init__(self, *seconds: float) -> None:
        self.backend = Noting()
        self.engine = noting_engine(self.backend, *seconds)
        self.server = Server(ServeOptions(http=0, grpc=0))

    def __enter__(self) -> Self:
        self.server.start()
        self.server.open(Opened(engine=self.engine, models=[served("m", MODEL)]))
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def over_http(self) -> int:
        url = f"http://127.0.0.1:{self.server.ports['http']}/v2/models/m/infer"
        with urlopen(
            Request(url, json.dumps(BODY).encode(), method="POST"), timeout=20.0
        ) as answer:
            return int(answer.status)

    def over_grpc(self) -> object:
        message = INFERENCE["ModelInferRequest"](model_name="m")
        message.inputs.add(name="x", datatype="FP32", shape=[1, 4])
        message.raw_input_contents.append(FEED["x"].tobytes())
        with grpc.insecure_channel(f"127.0.0.1:{self.server.ports['grpc']}") as channel:
            infer = channel.unary_unary(METHODS["ModelInfer"].path)
            return infer(message.SerializeToString(), timeout=20.0)


@pytest.fixture
def asked() -> Iterator[Asked]:
    with Asked() as made:
        yield made


def test_brief_runs_are_performed_by_the_thread_that_takes_requests(asked: Asked) -> None:
    assert asked.over_http() == 200
    assert asked.over_grpc()
    at_grpc = "coinfer-grpc" if is_offered() else "coinfer-server"
    assert asked.backend.threads == ["coinfer-server", at_grpc]


def test_long_runs_are_the_workers() -> None:
    with Asked(LONG_S) as made:
        assert made.over_http() == 200
        assert made.over_grpc()
    assert made.backend.threads == ["coinfer-p0", "coinfer-p0"]


def test_threads_of_a_server_that_ended_attend_no_more(asked: Asked) -> None:
    assert asked.over_http() == 200
    later = asked.engine._event_loop._mailbox.later
    assert len(later) == 3
    asked.server.close()
    assert list(later) == [threading.main_thread().ident]


@pytest.mark.skipif(not is_offered(), reason="grpc.aio serves")
def test_what_is_asked_over_grpc_does_not_wait_until_nothing_more_comes(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    grpc_front_end: Any = asked.server._grpc
    core = grpc_front_end._server._core
    poll = core._poll
    more = SimpleNamespace(tag=lambda _: None, completion_type=None)

    def and_more(until_s: float | None) -> Any:
        """Return an event whenever the thread does not wait for one."""
        event = poll(until_s)
        if until_s != 0.0 or event.completion_type != CompletionType.queue_timeout:
            return event
        core._n_due += 1
        return more

    monkeypatch.setattr(core, "_poll", and_more)
    assert asked.over_grpc()  # the present poll is of before
    assert asked.over_grpc()


@pytest.mark.skipif(not is_offered(), reason="grpc.aio serves")
def test_the_thread_of_grpc_outlives_what_fails_in_it(asked: Asked) -> None:
    grpc_front_end: Any = asked.server._grpc
    core = grpc_front_end._server._core
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise OSError

    core._soon.append(fail)
    assert asked.over_grpc()
    assert failed.wait(20.0)  # after the answer, if what was asked goes first


def test_an_engine_that_is_replaced_is_attended_no_more(asked: Asked) -> None:
    front_ends: Any = asked.server._front_ends
    before = asked.engine._event_loop._mailbox.later
    with noting_engine(Noting()) as fresh:
        front_ends.attend(fresh.attend)
        assert list(before) == [threading.main_thread().ident]
        assert len(fresh._event_loop._mailbox.later) == 3
        front_ends.attend(asked.engine.attend)
        assert len(before) == 3
