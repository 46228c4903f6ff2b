"""A request that cannot be in time is refused at once, and why a request went where it went."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from coinfer.backends.null import Faults, NullBackend
from coinfer.errors import RejectedError
from coinfer.server.live_page import state_of
from coinfer.server.request import InferRequest, InputTensor
from coinfer.server.served_model import served
from coinfer.server.service import Service
from coinfer.testing.models import tiny_linear
from server.servers import engine_of, until

MODEL = tiny_linear().model
X = InputTensor("x", "FP32", np.zeros((1, 4), np.float32))


@pytest.fixture
def busy() -> Iterator[Service]:
    """A service whose runs took a second each until they began to hang: two do, and six wait."""
    faults, service = Faults(), Service()
    engine = engine_of({"m": MODEL}, backend="null", backends={"null": NullBackend(faults=faults)})
    service.open(engine, [served("m", MODEL)])
    try:
        service.infer(InferRequest("m", [X])).response(10)
        service.watch.backlog._costs["m"] = 1.0
        faults.hang(times=2)
        for _ in range(8):
            service.infer(InferRequest("m", [X]))
        assert faults.wait_until_hanging(2)
        until(lambda: service.watch.backlog.n_waiting == 6)
        yield service
    finally:
        faults.release()
        engine.stop()


def test_what_cannot_be_in_time_is_refused_with_what_could_be_kept(busy: Service) -> None:
    with pytest.raises(RejectedError, match=r"6 requests wait; .* could be kept") as refused:
        busy.infer(InferRequest("m", [X], parameters={"timeout": 1_000_000}))
    after_s = refused.value.retry_after_s
    assert after_s is not None
    needed_s = busy.watch.backlog.wait_s(0) + 1.0
    assert after_s == pytest.approx(needed_s - 1.0)
    assert busy.statistics.models["m"].failures == {"REJECTED": 1}
    assert state_of(busy)["models"][0]["rejected"] == 1
    assert "could be kept" in state_of(busy)["misses"][-1]["why"]


def test_a_request_that_may_be_late_or_goes_first_is_taken(busy: Service) -> None:
    late = {"timeout": 1_000_000, "on_late": "run"}
    urgent = {"timeout": 2_000_000, "priority": 1}
    for parameters in (late, urgent, {}, {"timeout": 60_000_000}):
        busy.infer(InferRequest("m", [X], parameters=parameters))


def test_nothing_is_refused_early_while_nothing_waits() -> None:
    service = Service()
    with engine_of({"m": MODEL}, backend="null") as engine:
        service.open(engine, [served("m", MODEL)])
        service.watch.backlog._costs["m"] = 1.0
        request = InferRequest("m", [X], parameters={"timeout": 500_000})
        assert service.infer(request).response(10).model == "m"


def test_many_explanations_at_a_time_are_not_given() -> None:
    service = Service()
    with engine_of({"m": MODEL}, backend="null", seconds=0.002) as engine:
        service.open(engine, [served("m", MODEL)])
        request = InferRequest("m", [X], parameters={"coinfer_explain": True})
        inferences = [service.infer(request) for _ in range(200)]
        n_most = len(service.watch._explainers)
        said = [str(each.response(10).parameters["coinfer_explain"]) for each in inferences]
    assert n_most <= 16
    assert service.watch._explainers == ()
    assert any("too many" in each for each in said)


def test_why_a_request_went_where_it_went() -> None:
    service = Service()
    with engine_of({"m": MODEL}, backend="null") as engine:
        service.open(engine, [served("m", MODEL)])
        request = InferRequest("m", [X], parameters={"coinfer_explain": True})
        inferences = [service.infer(request) for _ in range(3)]
        found = [
            json.loads(str(each.response(10).parameters["coinfer_explain"])) for each in inferences
        ]
        plain = service.infer(InferRequest("m", [X])).response(10)
        assert service.watch._explainers == ()
    assert len({each["request"] for each in found}) == 3
    for each in found:
        [execution] = each["executions"]
        assert execution["processor"] in ("p0", "p1")
        assert {other["processor"] for other in execution["alternatives"]} == {"p0", "p1"}
        assert each["outcome"] == "completed"
    assert plain.parameters == {}
