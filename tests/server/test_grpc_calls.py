"""Calls of gRPC end as they should, whoever goes first; what was read before is read the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
grpc = pytest.importorskip("grpc", reason="the extra `server` is not installed")

from grpc._cython import cygrpc  # noqa: E402

from coinfer.backends.null import Faults, NullBackend  # noqa: E402
from coinfer.errors import CoinferError  # noqa: E402
from coinfer.server.grpc import core_server, front_end  # noqa: E402
from coinfer.server.grpc.core_server import CoreServer  # noqa: E402
from coinfer.server.grpc.infer_answer import write_infer  # noqa: E402
from coinfer.server.grpc.infer_message import parse_infer  # noqa: E402
from coinfer.server.grpc.known_answers import KnownAnswers  # noqa: E402
from coinfer.server.grpc.known_messages import KnownMessages  # noqa: E402
from coinfer.server.limits import ServerLimits  # noqa: E402
from coinfer.server.messages import INFERENCE, METHODS  # noqa: E402
from coinfer.server.opening import Opened  # noqa: E402
from coinfer.server.request import InferRequest, InferResponse, OutputTensor  # noqa: E402
from coinfer.server.served_model import served  # noqa: E402
from coinfer.server.serving import ServeOptions, Server  # noqa: E402
from coinfer.server.telemetry.record import RequestRecord  # noqa: E402
from coinfer.testing.models import tiny_linear  # noqa: E402
from server.servers import engine_of, futures_of, until  # noqa: E402

MODEL = tiny_linear().model
INFER = METHODS["ModelInfer"].path
LIMITS = ServerLimits(drain_s=2.0)


class Busy:
    """A server of a model `m` whose runs can be told to hang, and what is told of its requests."""

    def __init__(self) -> None:
        self.told: list[RequestRecord] = []
        self.faults = Faults()
        backends = {"null": NullBackend(faults=self.faults)}
        engine = engine_of({"m": MODEL}, backend="null", backends=backends)
        options = ServeOptions(http=None, grpc=0, limits=LIMITS)
        self.server = Server(options, listeners=[self.told.append])
        self.server.start()
        self.server.open(Opened(engine=engine, models=[served("m", MODEL)]))
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.server.ports['grpc']}")
        self.infer = self.channel.unary_unary(INFER)

    @property
    def n_unanswered(self) -> int:
        engine = self.server.service.engine
        assert engine is not None
        return engine.n_unanswered

    def close(self) -> None:
        self.faults.release()
        self.channel.close()
        self.server.close()


@pytest.fixture(params=["core", "aio"])
def busy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Busy]:
    """Both ways in which gRPC is served."""
    monkeypatch.setattr(front_end, "is_offered", lambda: request.param == "core")
    made = Busy()
    yield made
    made.close()


def message(number: str = "", size: int = 1) -> bytes:
    made = INFERENCE["ModelInferRequest"](model_name="m", id=number)
    made.inputs.add(name="x", datatype="FP32", shape=[size, 4])
    made.raw_input_contents.append(np.arange(4 * size, dtype=np.float32).tobytes())
    return bytes(made.SerializeToString())


def test_an_inference_is_answered_and_told_once(busy: Busy) -> None:
    for number in ("", "", "seven"):
        answer = INFERENCE["ModelInferResponse"].FromString(busy.infer(message(number)))
        assert (answer.id, answer.outputs[0].shape) == (number, [1, 3])
    until(lambda: len(busy.told) == 3)
    assert [each.status for each in busy.told] == ["OK"] * 3
    assert busy.told[2].id == "seven"


def test_who_goes_is_told_once_and_its_request_is_cancelled(busy: Busy) -> None:
    busy.faults.hang(times=2)
    running = [busy.infer.future(message()) for _ in range(2)]
    assert busy.faults.wait_until_hanging(2)
    waiting = busy.infer.future(message("gone"))
    until(lambda: busy.n_unanswered == 3)
    waiting.cancel()
    until(lambda: busy.n_unanswered == 2)
    busy.faults.release()
    assert all(each.result(20) for each in running)
    until(lambda: len(busy.told) == 3)
    assert busy.told[0].id == "gone"
    assert [each.status for each in busy.told] == ["CANCELLED", "OK", "OK"]


def test_who_goes_while_it_runs_hears_nothing_more(busy: Busy) -> None:
    busy.faults.hang(times=1)
    running = busy.infer.future(message("gone"))
    assert busy.faults.wait_until_hanging(1)
    running.cancel()
    until(lambda: len(busy.told) == 1)
    busy.faults.release()
    until(lambda: busy.n_unanswered == 0)
    assert busy.infer(message())
    until(lambda: len(busy.told) == 2)
    assert [each.status for each in busy.told] == ["CANCELLED", "OK"]


def test_a_call_that_hangs_does_not_keep_the_server(busy: Busy) -> None:
    busy.faults.hang(times=1)
    running = busy.infer.future(message())
    assert busy.faults.wait_until_hanging(1)
    front_ends = busy.server._front_ends
    assert front_ends is not None
    stopping = threading.Thread(target=front_ends.stop, args=(0.2,))
    stopping.start()
    stopping.join(20)
    assert not stopping.is_alive()
    assert running.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


def test_what_is_asked_before_the_end_is_answered(busy: Busy) -> None:
    busy.faults.hang(times=1)
    running = busy.infer.future(message())
    assert busy.faults.wait_until_hanging(1)
    front_ends = busy.server._front_ends
    assert front_ends is not None
    stopping = threading.Thread(target=front_ends.stop, args=(20.0,))
    stopping.start()
    busy.faults.release()
    assert running.result(20)
    stopping.join(20)
    assert not stopping.is_alive()


def test_nothing_of_an_answered_request_waits_for_the_collector(
    busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with futures_of(busy.server, monkeypatch) as futures:
        for number in range(5):
            assert busy.infer(message("" if number % 2 else "a"))
        assert len(futures) == 5
        until(lambda: all(each() is None for each in futures[:-1]))


def test_many_at_once_get_each_its_own(busy: Busy) -> None:
    calls = [busy.infer.future(message(f"{n}", 1 + n % 7)) for n in range(200)]
    for number, call in enumerate(calls):
        answer = INFERENCE["ModelInferResponse"].FromString(call.result(20))
        assert (answer.id, answer.outputs[0].shape) == (f"{number}", [1 + number % 7, 3])


def test_a_method_that_is_not_there_and_a_call_without_a_message(busy: Busy) -> None:
    absent = busy.channel.unary_unary("/inference.GRPCInferenceService/Absent")
    with pytest.raises(grpc.RpcError) as caught:
        absent(b"", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    if busy.server.service.name and front_end.is_offered():  # grpc.aio does not answer it
        for path in (INFER, METHODS["ServerLive"].path):
            empty = busy.channel.stream_unary(path)
            with pytest.raises(grpc.RpcError) as caught:
                empty(iter(()), timeout=20)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert busy.infer(message())


def test_the_deadline_of_a_call_drops_its_request(busy: Busy) -> None:
    busy.faults.hang(times=2)
    running = [busy.infer.future(message()) for _ in range(2)]
    assert busy.faults.wait_until_hanging(2)
    with pytest.raises(grpc.RpcError) as caught:
        busy.infer(message(), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: busy.n_unanswered == 2)
    busy.faults.release()
    assert all(each.result(20) for each in running)


@pytest.fixture
def on_core() -> Iterator[Busy]:
    """A server that uses gRPC's core, whose server is at hand."""
    made = Busy()
    yield made
    made.close()


def assert_stops(busy: Busy) -> None:
    """See that the server's thread knows that all calls are ended."""
    core, front_ends = core_of(busy), busy.server._front_ends
    assert front_ends is not None
    front_ends.stop(5.0)
    assert not core._thread.is_alive()


def core_of(busy: Busy) -> CoreServer:
    assert busy.server._grpc is not None
    assert isinstance(busy.server._grpc._server, front_end._OnCore)
    return busy.server._grpc._server._core


def test_an_event_that_is_lost_ends_no_other_call(
    on_core: Busy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    core = core_of(on_core)
    lost, poll = 12, core._poll

    def lossy(until_s: float | None) -> Any:
        nonlocal lost
        event = poll(until_s)
        if event.tag == core._called and lost:
            lost -= 1
            event = None
            raise MemoryError
        return event

    monkeypatch.setattr(core, "_poll", lossy)
    assert on_core.infer(message(), timeout=20)  # the wait that had begun is over
    for _ in range(lost):
        with pytest.raises(grpc.RpcError):
            on_core.infer(message(), timeout=20)
    assert on_core.infer(message(), timeout=20)
    assert caplog.text.count("an event of gRPC is lost") == 12
    assert_stops(on_core)


def test_a_call_that_cannot_be_asked_for_is_asked_for_again(
    on_core: Busy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    core = core_of(on_core)

    class Poor:
        """A core that has no memory for the next two calls."""

        server, n_refused = core._server, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.server, name)

        def request_call(self, *how: Any) -> Any:
            if self.n_refused < 2:
                self.n_refused += 1
                raise MemoryError
            return self.server.request_call(*how)

    monkeypatch.setattr(core, "_server", Poor())
    for _ in range(30):
        assert on_core.infer(message(), timeout=20)
    assert caplog.text.count("gRPC cannot be asked for the next call") == 2
    assert_stops(on_core)


@pytest.mark.parametrize("is_raised", [False, True])
@pytest.mark.parametrize("path", [INFER, METHODS["ServerLive"].path])
def test_who_cannot_be_answered_is_told(
    on_core: Busy, monkeypatch: pytest.MonkeyPatch, path: str, is_raised: bool
) -> None:
    start = CoreServer.start

    class Refusing:
        """A call that takes no message to be sent."""

        def __init__(self, call: Any) -> None:
            self.call = call

        def start_server_batch(self, operations: Any, tag: Any) -> int:
            if any(isinstance(each, cygrpc.SendMessageOperation) for each in operations):
                if is_raised:
                    raise MemoryError
                return 8
            return int(self.call.start_server_batch(operations, tag))

    monkeypatch.setattr(
        CoreServer, "start", lambda self, call, *how: start(self, Refusing(call), *how)
    )
    data = message() if path == INFER else b""
    with pytest.raises(grpc.RpcError) as caught:
        on_core.channel.unary_unary(path)(data, timeout=20)
    wanted = grpc.StatusCode.RESOURCE_EXHAUSTED if is_raised else grpc.StatusCode.INTERNAL
    assert caught.value.code() is wanted
    assert_stops(on_core)
    until(lambda: [each.status for each in on_core.told] == [wanted.name] or path != INFER)


def test_a_call_without_a_method_is_told(busy: Busy) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        busy.channel.unary_unary("")(b"", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_another_grpcio_is_used_by_its_own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    assert core_server.is_offered()
    monkeypatch.delattr(cygrpc, "ReceiveCloseOnServerOperation")
    made = Busy()
    try:
        assert made.server._grpc is not None
        assert isinstance(made.server._grpc._server, front_end._OnAio)
    finally:
        made.close()


def said(request: InferRequest) -> tuple[Any, ...]:
    arrays = [(n, t, a.dtype, a.shape, a.tolist()) for n, t, a in request.inputs]
    return (*request[:1], arrays, *request[2:-1])  # the form is not of the message


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from(["FP32", "BOOL", "INT16", "BYTES", "FP16"]),
            st.lists(st.integers(0, 3), max_size=2),
            st.binary(max_size=12),
            st.booleans(),
        ),
        max_size=3,
    ),
    st.sampled_from(["", "7"]),
    st.booleans(),
)
def test_a_message_is_read_the_same_again(
    tensors: list[tuple[str, str, list[int], bytes, bool]], number: str, has_priority: bool
) -> None:
    made = INFERENCE["ModelInferRequest"](model_name="m", id=number)
    if has_priority:
        made.parameters["priority"].int64_param = 3
    for name, datatype, shape, raw, is_there in tensors:
        made.inputs.add(name=name, datatype=datatype, shape=shape)
        if is_there:
            made.raw_input_contents.append(raw)
    known = KnownMessages(LIMITS)
    for contents in (list(made.raw_input_contents), [bytes(12)], [b"\1\0\1\0"] * len(tensors)):
        del made.raw_input_contents[:]
        made.raw_input_contents.extend(contents)
        data = made.SerializeToString()
        try:
            wanted: Any = said(parse_infer(data, LIMITS, None))
        except CoinferError as error:
            wanted = (type(error), str(error))
        for _ in range(2):
            try:
                found: Any = said(known.parse(data, None))
            except CoinferError as error:
                found = (type(error), str(error))
            assert found == wanted


def test_known_messages_and_answers_are_limited() -> None:
    known, answers = KnownMessages(LIMITS), KnownAnswers()
    for number in range(600):
        known.parse(message(size=number + 1), None)
        y = OutputTensor("y", "INT8", (number,), np.zeros(number, np.int8))
        answers.write(InferResponse("m", "1", "", [y]))
    assert len(known._found) <= 256
    assert len(answers._heads) <= 256


@pytest.mark.parametrize("number", ["", "7"])
@pytest.mark.parametrize("is_final", [False, True])
def test_an_answer_is_written_the_same_again(number: str, is_final: bool) -> None:
    answers = KnownAnswers()
    for value in range(3):
        texts = np.array(["a" * value, "b"], object)
        outputs = [
            OutputTensor("y", "INT16", (2,), np.array([value, 2], np.int16)),
            OutputTensor("z", "BYTES", (2,), texts),
            OutputTensor("e", "FP32", (0,), np.zeros(0, np.float32)),
        ]
        shared = [*outputs, OutputTensor("s", "FP32", (1,), None, {"shared_memory_region": "r"})]
        for each in (outputs, shared, outputs[:1]):
            response = InferResponse("m", "1", number, each)
            wanted = write_infer(response, is_final=is_final)
            assert answers.write(response, is_final=is_final) == wanted
