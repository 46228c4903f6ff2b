"""A model that is cut: its spans hand over the right values, whatever happens in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest

from coinfer.api import Engine
from coinfer.backends.base import Device, Placement, Session, Tensor, Tensors
from coinfer.backends.null import Faults, NullBackend, NullSession
from coinfer.backends.onnxruntime import OnnxRuntimeBackend
from coinfer.core.dispatcher import Limits
from coinfer.core.policy import Policy, Start
from coinfer.errors import BackendError, ClosedError, ConfigurationError, ExecutionError
from coinfer.graph.cut_model import CutModel
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.policies import policy_names
from planner.cut_models import chain_with_skip, cut
from runtime.engines import cpus

WAIT_S = 20.0
CHAIN = chain_with_skip()
CUTS = (1, 2, 3, 4)

Outputs = dict[str, Tensor]
Run = Callable[[Tensors], Outputs]


def computing(*names: str) -> tuple[Processor, ...]:
    return tuple(Processor(name=n, backend="onnxruntime", units=frozenset({n})) for n in names)


def null_engine(
    model: CutModel, *names: str, faults: Faults | None = None, **options: Any
) -> Engine:
    backend = NullBackend(faults=faults)
    return Engine(
        {"m": model}, processors=cpus(*names), backends={"null": backend}, pin=False, **options
    )


def assert_right(outputs: Mapping[str, Tensor], feed: Tensors) -> None:
    expected = CHAIN.reference(feed)
    assert list(outputs) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=1e-6)


class Spans:
    """Observer that notes which spans ran where, in order, by request."""

    def __init__(self) -> None:
        self.ran: dict[int, list[tuple[Span, str]]] = {}

    def observe(self, event: Any, commands: Any, now: float) -> None:
        for command in commands:
            if type(command).__name__ == "Run":
                for request in command.execution.requests:
                    step = (command.execution.span, command.execution.processor)
                    self.ran.setdefault(request.id, []).append(step)


@pytest.mark.parametrize("mode", [Mode.UNIT, Mode.MERGED])
def test_outputs_equal_those_of_the_whole_model(mode: Mode) -> None:
    model = cut(CHAIN.model, CUTS, ["p0", "p1"], mode=mode)
    with Engine({"m": model}, processors=computing("p0", "p1")) as engine:
        for seed in range(20):
            feed = CHAIN.model.sample_inputs(seed=seed, batch=1 + seed % 3)
            assert_right(engine.infer("m", feed), feed)


def test_every_request_in_flight_keeps_its_own_intermediates() -> None:
    model = cut(CHAIN.model, CUTS, ["p0", "p1"], mode=Mode.UNIT)

    def ask(seed: int) -> None:
        feed = CHAIN.model.sample_inputs(seed=seed, batch=1 + seed % 4)
        assert_right(engine.submit("m", feed).result(WAIT_S), feed)

    with (
        Engine({"m": model}, processors=computing("p0", "p1")) as engine,
        ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(ask, range(300)))


@pytest.mark.parametrize("name", [name for name in policy_names() if name != "fixed"])
def test_every_policy_runs_a_model_that_no_processor_runs_whole(name: str) -> None:
    """`p0` lacks the last unit and `p1` the first."""
    spans = {"p0": [(i, j) for i in range(4) for j in range(i, 4)]}
    spans["p1"] = [(i, j) for i in range(1, 5) for j in range(i, 5)]
    model = cut(CHAIN.model, CUTS, ["p0", "p1"], only=spans)
    feeds = [CHAIN.model.sample_inputs(seed=seed) for seed in range(40)]
    with Engine({"m": model}, processors=computing("p0", "p1"), policy=name) as engine:
        futures = [engine.submit("m", feed) for feed in feeds]
        for feed, future in zip(feeds, futures, strict=True):
            assert_right(future.result(WAIT_S), feed)


class AllAtOnce(Policy):
    """Starts everything that waits in a lane as one execution of one unit."""

    def __init__(self) -> None:
        self.largest = 0

    def rank(self, request: Any) -> float:
        return request.arrival_s

    def decide(self, view: Any) -> Any:
        for lane, able in view.startable()[:1]:
            together = tuple(lane.in_order())
            self.largest = max(self.largest, len(together))
            yield Start(able[0], together)


def test_a_batched_execution_gives_each_request_its_part_at_every_border() -> None:
    policy = AllAtOnce()
    model = cut(CHAIN.model, CUTS, ["p0"], mode=Mode.UNIT)
    feeds = [CHAIN.model.sample_inputs(seed=seed, batch=1 + seed % 3) for seed in range(50)]
    with Engine({"m": model}, processors=computing("p0"), policy=policy) as engine:
        futures = [engine.submit("m", feed) for feed in feeds]
        for feed, future in zip(feeds, futures, strict=True):
            assert_right(future.result(WAIT_S), feed)
    assert policy.largest > 1


def test_what_nobody_reads_any_more_is_dropped_and_what_is_read_twice_is_kept() -> None:
    model = cut(CHAIN.model, CUTS, ["p0"], mode=Mode.UNIT)
    kept = {span.first: set(piece.keeps) for span, piece in model.pieces.items()}
    assert kept == {
        0: {"a"},
        1: {"a", "early"},
        2: {"a", "early", "c"},
        3: {"early", "d"},
        4: {"early", "y"},
    }


class Around:
    """A session whose runs go through a function."""

    def __init__(self, session: Session, around: Callable[[Run, Tensors], Outputs]) -> None:
        self._session = session
        self._around = around

    def run(self, inputs: Tensors) -> Outputs:
        return self._around(self._session.run, inputs)

    def placement(self) -> Placement:
        return self._session.placement()

    def close(self) -> None:
        self._session.close()


class AroundBackend:
    """Computes with onnxruntime; every run goes through a function that knows what runs where."""

    name = "null"

    def __init__(self, around: Callable[[str, str, Run, Tensors], Outputs]) -> None:
        self._real = OnnxRuntimeBackend()
        self._around = around

    def versions(self) -> Mapping[str, str]:
        return {}

    def devices(self) -> tuple[Device, ...]:
        return self._real.devices()

    def sharing_key(self, processor: Processor) -> str:
        return processor.name

    def supported(self, model: Model, processor: Processor) -> frozenset[str] | None:
        return None

    def load(self, model: Model, processor: Processor) -> Around:
        span = model.name.removeprefix("m")
        around = partial(self._around, span, processor.name)
        return Around(self._real.load(model, processor), around)


def test_intermediates_are_handed_over_by_reference() -> None:
    came: list[Tensor] = []
    made: list[Tensor] = []

    def note(span: str, processor: str, run: Run, inputs: Tensors) -> Outputs:
        outputs = run(inputs)
        came.extend(inputs.values())
        made.extend(outputs.values())
        return outputs

    model = cut(CHAIN.model, CUTS, ["p0"], mode=Mode.UNIT)
    backends = {"null": AroundBackend(note)}
    feed = CHAIN.model.sample_inputs()
    with Engine({"m": model}, processors=cpus("p0"), backends=backends) as engine:
        engine.infer("m", feed)
    assert len(came) == 6
    assert {id(value) for value in came} <= {id(value) for value in (*feed.values(), *made)}


@pytest.mark.parametrize("failing", range(5))
def test_a_span_that_fails_starts_again_elsewhere_from_the_last_border(failing: int) -> None:
    """The values before it are still there, and what ran before does not run again."""
    spans = Spans()
    failed = threading.Event()

    def fail_once(span: str, processor: str, run: Run, inputs: Tensors) -> Outputs:
        if span == f"[{failing}-{failing}]" and not failed.is_set():
            failed.set()
            raise ExecutionError("not today")
        return run(inputs)

    model = cut(CHAIN.model, CUTS, ["p0", "p1"], mode=Mode.UNIT)
    backends = {"null": AroundBackend(fail_once)}
    feed = CHAIN.model.sample_inputs()
    with Engine(
        {"m": model}, processors=cpus("p0", "p1"), backends=backends, observer=spans
    ) as engine:
        assert_right(engine.infer("m", feed), feed)
    (ran,) = spans.ran.values()
    assert [span.first for span, _ in ran] == sorted([*range(5), failing])
    first, again = (name for span, name in ran if span.first == failing)
    assert first != again


def test_a_processor_that_keeps_failing_is_set_aside_and_requests_go_on_elsewhere() -> None:
    faults = Faults()
    spans = Spans()
    faults.fail(processor="p0", times=100)
    limits = Limits(set_aside_after=3, probe_s=1000.0)
    unit_s = {"p0": 1e-6, "p1": 1e-2}  # so `p0` is always wanted
    model = cut(CHAIN.model, CUTS, ["p0", "p1"], mode=Mode.UNIT, unit_s=unit_s)
    with null_engine(model, "p0", "p1", faults=faults, limits=limits, observer=spans) as engine:
        for _ in range(10):
            assert engine.submit("m", CHAIN.model.sample_inputs()).exception(WAIT_S) is None
    ran = [name for steps in spans.ran.values() for _, name in steps]
    assert ran.count("p0") == 3


def test_a_late_result_does_not_take_a_request_back() -> None:
    """`p0` is given up in the first unit, and comes back while `p1` is in the fourth."""
    gates = {("[0-0]", "p0"): threading.Event(), ("[3-3]", "p1"): threading.Event()}
    reached = {where: threading.Event() for where in gates}
    restored = threading.Event()

    def behind_gate(span: str, processor: str, run: Run, inputs: Tensors) -> Outputs:
        if (span, processor) in gates:
            reached[span, processor].set()
            assert gates[span, processor].wait(WAIT_S)
        return run(inputs)

    class Restored:
        def observe(self, event: Any, commands: Any, now: float) -> None:
            if type(event).__name__ == "ProcessorRestored":
                restored.set()

    unit_s = {"p0": 1e-4, "p1": 100.0}  # so nobody gives up on `p1`
    model = cut(CHAIN.model, CUTS, ["p0", "p1"], mode=Mode.UNIT, unit_s=unit_s)
    feed = CHAIN.model.sample_inputs()
    with Engine(
        {"m": model},
        processors=cpus("p0", "p1"),
        backends={"null": AroundBackend(behind_gate)},
        limits=Limits(hang_min_s=0.01, hang_factor=1.0),
        observer=Restored(),
    ) as engine:
        future = engine.submit("m", feed)
        assert reached["[3-3]", "p1"].wait(WAIT_S)
        assert reached["[0-0]", "p0"].wait(WAIT_S)
        gates["[0-0]", "p0"].set()
        assert restored.wait(WAIT_S)
        gates["[3-3]", "p1"].set()
        assert_right(future.result(WAIT_S), feed)


def test_a_request_can_be_cancelled_between_its_spans() -> None:
    faults = Faults()
    spans = Spans()
    faults.hang()
    model = cut(CHAIN.model, CUTS, ["p0"], mode=Mode.UNIT)
    with null_engine(model, "p0", faults=faults, observer=spans) as engine:
        future = engine.submit("m", CHAIN.model.sample_inputs())
        assert faults.wait_until_hanging()
        assert future.running()
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result(WAIT_S)
        faults.release()
        assert engine.drain(WAIT_S)
    assert [step for steps in spans.ran.values() for step in steps] == [(Span(0, 0), "p0")]


def test_a_request_in_its_last_span_cannot_be_cancelled_any_more() -> None:
    faults = Faults()
    faults.hang()
    model = cut(CHAIN.model, CUTS, ["p0"])
    with null_engine(model, "p0", faults=faults) as engine:
        future = engine.submit("m", CHAIN.model.sample_inputs())
        assert faults.wait_until_hanging()
        assert not future.cancel()
        faults.release()
        assert future.exception(WAIT_S) is None


def test_a_stop_that_runs_out_of_time_between_spans_answers_everything() -> None:
    faults = Faults()
    faults.hang()
    engine = null_engine(cut(CHAIN.model, CUTS, ["p0"], mode=Mode.UNIT), "p0", faults=faults)
    futures = [engine.submit("m", CHAIN.model.sample_inputs()) for _ in range(3)]
    assert faults.wait_until_hanging()
    engine.stop(timeout_s=0.01)
    faults.release()
    assert all(isinstance(future.exception(WAIT_S), ClosedError) for future in futures)
    assert engine.fault is None


def test_unloading_leaves_no_session_of_any_span_open(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[NullSession] = []
    closed: list[NullSession] = []
    load, close = NullBackend.load, NullSession.close

    def noted_load(backend: NullBackend, model: Model, processor: Processor) -> NullSession:
        loaded.append(load(backend, model, processor))
        return loaded[-1]

    def noted_close(session: NullSession) -> None:
        closed.append(session)
        close(session)

    monkeypatch.setattr(NullBackend, "load", noted_load)
    monkeypatch.setattr(NullSession, "close", noted_close)
    model = cut(CHAIN.model, CUTS, ["p0", "p1"], mode=Mode.UNIT)
    with null_engine(model, "p0", "p1") as engine:
        assert len(loaded) == 10
        engine.infer("m", CHAIN.model.sample_inputs())
        engine.unload("m")
        assert {id(session) for session in closed} == {id(session) for session in loaded}
        engine.load("m", model)
        assert engine.infer("m", CHAIN.model.sample_inputs())["y"].shape == (1, 4)


def test_a_span_that_cannot_be_compiled_leaves_nothing_behind() -> None:
    faults = Faults()
    faults.fail_load(model="m[2-2]")
    model = cut(CHAIN.model, CUTS, ["p0"], mode=Mode.UNIT)
    backend = NullBackend(faults=faults)
    with Engine({}, processors=cpus("p0"), backends={"null": backend}, pin=False) as engine:
        with pytest.raises(BackendError, match=r"m\[2-2\]"):
            engine.load("m", model)
        assert engine.models == ()
        engine.load("m", model)
        assert engine.infer("m", CHAIN.model.sample_inputs())["y"].shape == (1, 4)


def test_a_wide_processor_without_threads_left_is_left_out_with_all_its_spans() -> None:
    narrow = Processor(name="p0", backend="null", units=frozenset({"a"}))
    wide = Processor(name="w", backend="null", units=frozenset({"a", "b"}), threads=2)
    faults = Faults()
    faults.fail_load(processor="w", model="m[1-1]")
    backends = {"null": NullBackend(faults=faults)}
    model = cut(CHAIN.model, CUTS, ["p0", "w"], mode=Mode.UNIT)
    spans = Spans()
    with Engine(
        {"m": model}, processors=[narrow, wide], backends=backends, pin=False, observer=spans
    ) as engine:
        assert any("w" in warning for warning in engine.warnings)
        engine.infer("m", CHAIN.model.sample_inputs())
        assert engine.placement("m").keys() == {"p0"}
    assert {name for steps in spans.ran.values() for _, name in steps} == {"p0"}


def test_placement_tells_of_the_longest_span_of_each_processor() -> None:
    model = cut(CHAIN.model, CUTS, ["p0", "p1"], only={"p1": [(0, 1), (2, 2)]})
    with null_engine(model, "p0", "p1") as engine:
        counts = {name: sum(p.operators.values()) for name, p in engine.placement("m").items()}
    assert counts == {"p0": 5, "p1": 2}


def test_models_that_are_cut_and_whole_ones_run_side_by_side() -> None:
    seconds = {"whole": {"p0": 1e-4, "p1": 1e-4}}
    model = cut(CHAIN.model, CUTS, ["p0", "p1"], mode=Mode.UNIT).renamed("cut")
    profile = model.profile.merged(Profile.from_seconds(seconds))
    with Engine(
        {"cut": model, "whole": CHAIN.model}, processors=computing("p0", "p1"), profile=profile
    ) as engine:
        feeds = [CHAIN.model.sample_inputs(seed=seed) for seed in range(40)]
        futures = [(f, engine.submit(name, f)) for f in feeds for name in ("cut", "whole")]
        for feed, future in futures:
            assert_right(future.result(WAIT_S), feed)


def test_a_profile_beside_partitioning_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="leave the profile out"):
        Engine({}, processors=cpus("p0"), profile=Profile(), partition=PartitionOptions())


def test_a_whole_model_is_not_loaded_with_the_times_of_its_units() -> None:
    model = cut(CHAIN.model, CUTS, ["p0"], mode=Mode.UNIT)
    backends = {"null": AroundBackend(lambda _span, _processor, run, inputs: run(inputs))}
    with (
        Engine({}, processors=cpus("p0"), backends=backends) as engine,
        pytest.raises(ConfigurationError, match="is of 5 units, but the model is in 1"),
    ):
        engine.load(model.model.name, model.model, model.profile)
