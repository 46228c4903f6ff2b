"""Tenants with weights, over both protocols, with an engine whose runs can be told to hang."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from coinfer.backends.null import Faults, NullBackend
from coinfer.errors import ConfigurationError, InputError, RejectedError
from coinfer.runtime import clock
from coinfer.server.access import Tenant, read_tokens, weights_of
from coinfer.server.live_page import state_of
from coinfer.server.opening import Opened
from coinfer.server.prometheus import _Collector, _TritonCollector
from coinfer.server.request import InferRequest, InputTensor
from coinfer.server.served_model import served
from coinfer.server.service import Service
from coinfer.server.serving import ServeOptions, Server
from coinfer.testing.models import tiny_linear
from server.servers import engine_of, until
from server.test_ensembles import MODELS as STAGES
from server.test_ensembles import described, picture
from server.test_http import ask
from server.test_request_log import Told

MODEL = tiny_linear().model
X = InputTensor("x", "FP32", np.zeros((1, 4), np.float32))
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0] * 4}]}
A, B = "a" * 16, "b" * 16
WAIT_S = 20


@pytest.fixture
def faults() -> Iterator[Faults]:
    made = Faults()
    yield made
    made.release()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def server(faults: Faults, told: Told) -> Iterator[Server]:
    tenants = [Tenant("a", A, weight=3.0), Tenant("b", B)]
    options = ServeOptions(http=0, grpc=0, tenants=tenants)
    engine = engine_of(
        {"m": MODEL}, backend="null", backends={"null": NullBackend(0.0, faults=faults)}
    )
    with Server(options, listeners=[told.append]) as made:
        made.open(Opened(engine=engine, models=[served("m", MODEL)], most_waiting=60))
        try:
            yield made
        finally:
            faults.release()


def held(server: Server | Service) -> int:
    service = server.service if isinstance(server, Server) else server
    assert service.tenants is not None
    return service.tenants.n_held


def hang(service: Service, faults: Faults) -> None:
    """Let both processors hang, and the engine have enough."""
    faults.hang(times=2)
    for _ in range(30):
        service.infer(InferRequest("m", [X]), tenant="other")
    assert faults.wait_until_hanging(2)
    tenants = service.tenants
    assert tenants is not None
    until(lambda: not tenants._work.has_room())  # the thread of the queue has seen both
    assert held(service)


def test_requests_over_http_wait_for_their_turn(server: Server, faults: Faults, told: Told) -> None:
    hang(server.service, faults)
    before, statuses = held(server), list[int]()
    headers = [{"Authorization": f"Bearer {token}"} for token in (A, B)]
    gzip = {"Accept-Encoding": "gzip"}  # which is answered by the ASGI application

    def infer(how: dict[str, str]) -> None:
        statuses.append(ask(server, "POST", "/v2/models/m/infer", BODY, how).status)

    asking = [
        threading.Thread(target=infer, args=(how,))
        for how in (headers[0], headers[1], {**headers[0], **gzip})
    ]
    for each in asking:
        each.start()
    until(lambda: held(server) == before + 3)
    text = ask(server, "GET", "/metrics", None, headers[0]).body.decode()
    for line in (
        'coinfer_tenant_weight{tenant="a"} 3.0',
        'coinfer_tenant_requests_held{tenant="a"} 2.0',
        'coinfer_tenant_requests_total{tenant="b"} 1.0',
        'coinfer_tenant_requests_total{tenant="other"} 30.0',
    ):
        assert line in text
    faults.release()
    for each in asking:
        each.join()
    assert statuses == [200] * 3
    told.last(4)
    records = [each for each in told if each.call == "infer"]
    assert sorted(each.tenant for each in records) == ["a", "a", "b"]
    for each in records:  # the engine's number of it was found, though it came late
        assert each.started_s is not None
        assert each.arrived_s < each.started_s


def test_requests_over_grpc_wait_for_their_turn(server: Server, faults: Faults) -> None:
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
    hang(server.service, faults)
    before = held(server)
    given = triton.InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(np.zeros((1, 4), np.float32))
    with triton.InferenceServerClient(f"127.0.0.1:{server.ports['grpc']}") as client:
        asked = client.async_infer(
            "m", [given], lambda *_: None, headers={"authorization": f"Bearer {B}"}
        )
        until(lambda: held(server) == before + 1)
        assert asked is not None
    until(lambda: held(server) == before)  # the client closed its connection and cancelled
    assert server.service.statistics.models["m"].failures == {}


def test_early_refusal_knows_what_is_held(server: Server, faults: Faults) -> None:
    service = server.service
    hang(service, faults)
    tenants = service.tenants
    assert tenants is not None
    service.watch.backlog._costs["m"] = tenants._work._costs["m"] = 1.0
    for _ in range(20):
        service.infer(InferRequest("m", [X]), tenant="b")
    wanted = InferRequest("m", [X], parameters={"timeout": 15_000_000})
    with pytest.raises(RejectedError, match=r"requests wait; .* could be kept") as refused:
        service.infer(wanted, tenant="b")
    late_s = refused.value.retry_after_s
    with pytest.raises(RejectedError) as refused:
        service.infer(wanted._replace(parameters={"timeout": 1_000_000}), tenant="a")
    soon_s = refused.value.retry_after_s
    assert late_s is not None
    assert soon_s is not None
    assert soon_s + 1.0 < late_s + 15.0  # `a` has less before it
    assert service.statistics.models["m"].failures == {"REJECTED": 2}


def test_who_has_its_share_of_what_may_wait_is_refused(server: Server, faults: Faults) -> None:
    service = server.service
    hang(service, faults)
    requests = [service.infer(InferRequest("m", [X]), tenant="b") for _ in range(32)]
    with pytest.raises(RejectedError, match="tenant 'b' has its share"):
        service.infer(InferRequest("m", [X]), tenant="b")
    requests.append(service.infer(InferRequest("m", [X]), tenant="a"))
    faults.release()
    for each in requests:
        assert each.response(WAIT_S).model == "m"


def test_a_wrong_request_that_is_held_is_refused_all_the_same(
    server: Server, faults: Faults
) -> None:
    service = server.service
    hang(service, faults)
    wrong = InputTensor("x", "FP32", np.zeros((1, 5), np.float32))
    asked = service.infer(InferRequest("m", [wrong]), tenant="a")
    faults.release()
    with pytest.raises(InputError):
        asked.response(WAIT_S)
    [model] = list(service.catalogue)
    until(lambda: not service.is_submitting(model))


def test_an_explained_request_is_found_though_another_came_at_the_same_moment(
    server: Server, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = server.service
    hang(service, faults)
    tenants, at_s = service.tenants, clock.now()
    assert tenants is not None
    monkeypatch.setattr("coinfer.server.watch.clock", SimpleNamespace(now=lambda: at_s))
    monkeypatch.setattr(tenants, "_now", lambda: at_s)
    service.infer(InferRequest("m", [X]), tenant="a")
    wanted = InferRequest("m", [X], parameters={"coinfer_explain": True})
    asked = [service.infer(wanted, tenant="a") for _ in range(3)]
    faults.release()
    said = [json.loads(str(each.response(WAIT_S).parameters["coinfer_explain"])) for each in asked]
    assert len({each["request"] for each in said}) == 3


def test_what_is_held_is_told_as_waiting(server: Server, faults: Faults) -> None:
    service = server.service
    hang(service, faults)
    n_waiting = 30 - 2  # two run
    until(lambda: state_of(service)["models"][0]["waiting"] == n_waiting)
    collectors = _Collector(service), _TritonCollector(service)
    found = {
        (sample.name, sample.labels.get("model")): sample.value
        for collector in collectors
        for family in collector.collect()
        for sample in family.samples
    }
    assert found["coinfer_requests_waiting", "m"] == n_waiting
    assert found["nv_inference_pending_request_count", "m"] == n_waiting


def test_a_request_that_cannot_be_explained_keeps_no_model_loaded(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = server.service

    def fail(*_: object) -> None:
        raise InputError("no")

    monkeypatch.setattr(service.watch, "explain", fail)
    with pytest.raises(InputError):
        service.infer(InferRequest("m", [X], parameters={"coinfer_explain": True}), tenant="a")
    [model] = list(service.catalogue)
    assert not service.is_submitting(model)


def test_what_stages_of_an_ensemble_take_is_the_tenants(tmp_path: Path) -> None:
    service = Service()
    service.weights = {"a": 1.0, "b": 1.0}
    with engine_of(STAGES, backend="null") as engine:
        models = [served(name, model) for name, model in STAGES.items()]
        service.open(engine, models, [described(tmp_path)])
        try:
            given = InputTensor("image", "FP32", picture()["image"])
            for _ in range(3):
                service.infer(InferRequest("faces", [given]), tenant="a").response(WAIT_S)
            assert service.tenants is not None
            seconds = {each.tenant: each.seconds for each in service.tenants.counts()}
        finally:
            service.ensembles.close()
            assert service.tenants is not None
            service.tenants.close("the end")
    assert seconds["a"] > 0.0
    assert seconds["b"] == 0.0


def test_without_weights_there_is_nothing_of_it() -> None:
    options = ServeOptions(http=0, tenants=[Tenant("a", A)])
    with Server(options) as server:
        engine = engine_of({"m": MODEL}, backend="null")
        server.open(Opened(engine=engine, models=[served("m", MODEL)]))
        assert server.service.tenants is None
        assert server.service.watch.tenants is None
        how = {"Authorization": f"Bearer {A}"}
        assert ask(server, "POST", "/v2/models/m/infer", BODY, how).status == 200
        assert b"coinfer_tenant" not in ask(server, "GET", "/metrics", None, how).body


def test_a_line_of_a_file_of_tokens_may_have_a_rate_and_a_weight(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"a {A} 100/s weight=3\nb {B} weight=0.5  # no rate\nc {'c' * 16} 5/s\n")
    tenants = read_tokens(path)
    assert [(each.name, each.rate_per_s, each.weight) for each in tenants] == [
        ("a", 100.0, 3.0),
        ("b", float("inf"), 0.5),
        ("c", 5.0, None),
    ]
    assert weights_of(tenants) == {"a": 3.0, "b": 0.5, "c": 1.0}
    assert weights_of(tenants[2:]) == {}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (f"a {A} weight=0", "'weight=0' is no weight"),
        (f"a {A} weight=much", "is no weight"),
        (f"a {A} weight=nan", "is no weight"),
        (f"a {A} weight=1 weight=2", "one rate and one weight"),
        (f"a {A} 1/s 2/s", "one rate and one weight"),
        (f"a {A} weight=1\na {B} weight=2", "several weights"),
        (f"a {A} 1/s weight=1 more", "write NAME TOKEN"),
    ],
)
def test_a_wrong_weight_is_said(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(line)
    with pytest.raises(ConfigurationError, match=what):
        read_tokens(path)
