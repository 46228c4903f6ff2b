"""An ensemble is a model to clients of a server, over HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

import tritonclient.grpc  # noqa: E402
import tritonclient.http  # noqa: E402

from coinfer.backends.null import Faults, NullBackend  # noqa: E402
from coinfer.errors import (  # noqa: E402
    ConfigurationError,
    DroppedError,
    ForbiddenError,
    NotReadyError,
    RejectedError,
    UnknownNameError,
)
from coinfer.server.request import InferRequest, InputTensor  # noqa: E402
from coinfer.server.served_model import served  # noqa: E402
from coinfer.server.service import Service  # noqa: E402
from coinfer.server.serving import ServeOptions, Server  # noqa: E402
from ensembles.pipelines import FACES, MODELS, STEPS, described, picture  # noqa: E402
from server.servers import engine_of, serving, until  # noqa: E402
from server.test_http import ask, infer  # noqa: E402

WAIT_S = 20.0
_CAREFUL = "    if image.max() > 5: raise ValueError('too bright')\n"
_CAREFUL += "    from coinfer.errors import InputError\n"
_CAREFUL += "    if image.max() < 0: raise InputError('darker than dark')\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    steps = STEPS.replace("    rows, ", f"{_CAREFUL}    rows, ")
    description = described(tmp_path_factory.mktemp("faces"), steps=steps)
    with serving(MODELS, options=ServeOptions(http=0, grpc=0), ensembles=[description]) as server:
        yield server


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[tuple[Any, Any]]:
    """A client and its module."""
    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[request.param]
    with module.InferenceServerClient(f"127.0.0.1:{server.ports[request.param]}") as made:
        yield made, module


def _asked(client: tuple[Any, Any], image: np.ndarray, **how: Any) -> Any:
    made, module = client
    given = module.InferInput("image", list(image.shape), "FP32")
    given.set_data_from_numpy(image)
    return made.infer("faces", [given], **how)


@pytest.mark.parametrize("cells", [(), (7,), (0, 9, 33)])
def test_clients_ask_it_like_a_model(client: tuple[Any, Any], cells: tuple[int, ...]) -> None:
    answer = _asked(client, picture(*cells)["image"], timeout=10_000_000, priority=1)
    scores = answer.as_numpy("scores")
    assert (scores.shape, scores.dtype) == ((len(cells), 64), np.float32)
    np.testing.assert_allclose(scores[:, 0], [2 * (1 + c / 100) for c in cells], rtol=1e-6)
    assert answer.as_numpy("heat").shape == (1, 1, 8, 8)


def test_an_output_may_be_asked_for_alone(client: tuple[Any, Any]) -> None:
    wanted = client[1].InferRequestedOutput("heat")
    answer = _asked(client, picture(1)["image"], outputs=[wanted])
    assert answer.as_numpy("heat").max() > 0.5
    assert answer.as_numpy("scores") is None


def test_it_says_what_it_is(client: tuple[Any, Any]) -> None:
    made, module = client
    assert made.is_model_ready("faces")
    how = {"as_json": True} if module is tritonclient.grpc else {}
    found = made.get_model_metadata("faces", **how)
    assert (found["versions"], found["platform"]) == (["1"], "ensemble")
    assert [each["name"] for each in found["inputs"]] == ["image"]
    assert [int(n) for n in found["inputs"][0]["shape"]] == [1, 1, 64, 64]
    scores, heat = found["outputs"]
    assert (scores["datatype"], [int(n) for n in scores["shape"]]) == ("FP32", [-1, 64])
    assert heat["name"] == "heat"
    made.get_model_config("faces")


def test_requests_are_counted_with_the_ensemble_and_with_its_models(server: Server) -> None:
    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.ports['http']}") as made:
        client = (made, tritonclient.http)

        def counts(model: str) -> tuple[int, int, int]:
            [found] = made.get_inference_statistics(model)["model_stats"]
            said = found["inference_stats"]
            return found["inference_count"], said["success"]["count"], said["fail"]["count"]

        before = {name: counts(name) for name in ("faces", "detector", "classifier")}
        _asked(client, picture(1, 2, 3)["image"])
        with pytest.raises(tritonclient.http.InferenceServerException):
            _asked(client, picture()["image"] + 9)
        after = {name: counts(name) for name in before}
        more = {n: tuple(np.subtract(after[n], before[n])) for n in before}
        assert more == {"faces": (1, 1, 1), "detector": (2, 2, 0), "classifier": (3, 3, 0)}
        [whole] = made.get_inference_statistics("faces")["model_stats"]
        assert whole["inference_stats"]["success"]["ns"] > 0


def test_a_function_that_fails_is_named_and_is_not_the_clients_fault(server: Server) -> None:
    body = {"inputs": [_json(picture()["image"] + 9)]}
    answer = infer(server, "faces", body)
    assert answer.status == 500
    assert answer.error.startswith("ensemble 'faces', stage 'cut': steps:cut failed: ValueError:")


def test_a_function_may_refuse_what_a_client_sent(server: Server) -> None:
    answer = infer(server, "faces", {"inputs": [_json(picture()["image"] - 9)]})
    assert (answer.status, answer.error) == (400, "ensemble 'faces', stage 'cut': darker than dark")


def test_wrong_inputs_are_refused_as_of_a_model(server: Server) -> None:
    answer = infer(server, "faces", {"inputs": [_json(np.zeros((1, 1, 8, 8), np.float32))]})
    assert answer.status == 400
    assert "takes shape [1,1,64,64]" in answer.error


def _json(image: np.ndarray) -> dict[str, Any]:
    shape, data = list(image.shape), image.ravel().tolist()
    return {"name": "image", "datatype": "FP32", "shape": shape, "data": data}


def test_metrics_and_the_index_have_it(server: Server) -> None:
    assert infer(server, "faces", {"inputs": [_json(picture(1)["image"])]}).status == 200
    metrics = ask(server, "GET", "/metrics").body.decode()
    found = [line for line in metrics.splitlines() if '"faces"' in line and "completed" in line]
    assert float(found[0].split()[-1]) >= 1
    index = ask(server, "POST", "/v2/repository/index", {}).json
    assert {each["name"] for each in index} == {"detector", "classifier", "faces"}
    assert ask(server, "GET", "/state").status == 200


def test_an_explained_request_tells_of_a_stage(server: Server) -> None:
    body = {"inputs": [_json(picture(1)["image"])]}
    answer = infer(server, "faces", body, X_Coinfer_Explain="1")
    assert '"executions":[{' in answer.headers["x-coinfer-explain"]


# on the null backend, whose runs can be told to hang


def _request(**parameters: Any) -> InferRequest:
    given = InputTensor("image", "FP32", picture()["image"])
    return InferRequest("faces", [given], parameters=parameters)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[Service, Faults]]:
    faults, service = Faults(), Service()
    backend = NullBackend(0.0, faults=faults)
    with engine_of(MODELS, backend="null", backends={"null": backend}) as engine:
        models = [served(name, model) for name, model in MODELS.items()]
        service.open(engine, models, [described(tmp_path)])
        yield service, faults
        faults.release()
        service.ensembles.close()


def test_a_stage_that_is_too_late_drops_the_whole(slow: tuple[Service, Faults]) -> None:
    service, faults = slow
    faults.hang(times=2)
    hanging = [service.infer(_request()) for _ in range(2)]
    assert faults.wait_until_hanging(2)
    late = service.infer(_request(timeout=1000))
    with pytest.raises(DroppedError, match="ensemble 'faces', stage 'find'"):
        late.response(WAIT_S)
    faults.release()
    for each in hanging:
        assert len(each.response(WAIT_S).outputs) == 2


def test_a_request_that_could_not_be_in_time_is_refused_at_once(
    slow: tuple[Service, Faults],
) -> None:
    service, faults = slow
    for _ in range(3):  # so that it is known what a detector takes
        service.infer(_request()).response(WAIT_S)
    faults.hang(times=2)
    waiting = [service.infer(_request()) for _ in range(4)]
    assert faults.wait_until_hanging(2)
    until(lambda: service.watch.backlog.n_waiting == 2)  # the core may not have seen them yet
    service.watch.backlog._costs["detector"] = 5.0  # now, as nothing ends that would change it
    with pytest.raises(RejectedError, match="'faces': an answer within 6 s cannot be promised"):
        service.infer(_request(timeout=6_000_000))
    assert service.statistics.models["ensemble:faces"].refused == 1
    faults.release()
    for each in waiting:
        each.response(WAIT_S)


def test_a_client_that_goes_cancels_it(slow: tuple[Service, Faults]) -> None:
    service, faults = slow
    faults.hang(model="detector")
    inference = service.infer(_request())
    assert faults.wait_until_hanging()
    inference.cancel()
    assert inference.future.cancelled()
    assert service.statistics.models["ensemble:faces"].failures == {"CANCELED": 1}


def test_what_is_under_way_is_answered_when_the_server_ends(slow: tuple[Service, Faults]) -> None:
    service, faults = slow
    faults.hang(model="detector")
    inference = service.infer(_request())
    assert faults.wait_until_hanging()
    service.close()
    faults.release()
    assert len(inference.response(WAIT_S).outputs) == 2


def test_it_is_not_ready_without_its_models(slow: tuple[Service, Faults]) -> None:
    service, _ = slow
    assert service.is_model_ready("faces")
    service.catalogue.replace("detector", [])
    assert not service.is_model_ready("faces")
    with pytest.raises(NotReadyError, match="stage 'find': model 'detector' is not served now"):
        service.infer(_request()).response(WAIT_S)


def test_the_newest_version_of_a_model_is_asked(slow: tuple[Service, Faults]) -> None:
    service, _ = slow
    model = MODELS["detector"]
    service.catalogue.add(served("detector", model, engine_name="classifier", version="2"))
    with pytest.raises(Exception, match="stage 'find': model 'classifier'"):
        service.infer(_request()).response(WAIT_S)


class _NoControl:
    """What must not be asked."""

    def index(self) -> list[dict[str, str]]:
        return []

    def load(self, name: str, parameters: Any) -> None:
        raise AssertionError

    def unload(self, name: str) -> None:
        raise AssertionError


def test_clients_neither_load_nor_unload_it(slow: tuple[Service, Faults]) -> None:
    service, _ = slow
    service.control = _NoControl()
    with pytest.raises(ForbiddenError, match="'faces' is an ensemble"):
        service.unload_model("faces")
    with pytest.raises(ForbiddenError, match="'faces' is an ensemble"):
        service.load_model("faces", {})


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (FACES.replace("ensemble: faces", "ensemble: detector"), ConfigurationError, "served alr"),
        (FACES.replace("model: classifier", "model: faces"), UnknownNameError, "model 'faces'"),
    ],
)
def test_an_ensemble_that_does_not_fit_is_refused_at_the_start(
    tmp_path: Path, text: str, kind: type[Exception], said: str
) -> None:
    service, description = Service(), described(tmp_path, text)
    models = [served(name, model) for name, model in MODELS.items()]
    with engine_of(MODELS, backend="null") as engine, pytest.raises(kind, match=said):
        service.open(engine, models, [description])
