"""The engine answers every request exactly once, with real threads, whatever happens."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from functools import partial

import numpy as np
import pytest

from coinfer.api import Engine
from coinfer.backends.base import Tensor, Tensors
from coinfer.backends.null import Faults, NullBackend, NullSession
from coinfer.core.dispatcher import Limits
from coinfer.core.events import Arrived
from coinfer.core.policy import Policy, Start
from coinfer.errors import (
    ClosedError,
    ConfigurationError,
    DroppedError,
    InputError,
    PolicyError,
    RejectedError,
    UnknownNameError,
)
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.testing.models import examples, tiny_linear
from runtime.engines import FEED, MODEL, null_engine

WAIT_S = 20.0


def test_a_request_gets_the_outputs_of_its_model() -> None:
    with null_engine() as engine:
        outputs = engine.submit("m", FEED).result(WAIT_S)
    assert set(outputs) == {spec.name for spec in MODEL.outputs}


@pytest.mark.parametrize("example", examples(), ids=lambda e: e.model.name)
def test_outputs_equal_the_reference_on_a_real_backend(example) -> None:
    cpu = Processor(name="cpu0", backend="onnxruntime", units=frozenset({"core0"}))
    feed = example.model.sample_inputs()
    profile = Profile.from_seconds({"m": {"cpu0": 1e-4}})
    with Engine({"m": example.model}, processors=[cpu], profile=profile) as engine:
        outputs = engine.infer("m", feed)
    for name, expected in example.reference(feed).items():
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-5, atol=1e-6)


def test_many_threads_each_get_their_own_answers() -> None:
    example = tiny_linear()
    cores = [
        Processor(name=f"cpu{i}", backend="onnxruntime", units=frozenset({f"core{i}"}))
        for i in range(2)
    ]
    profile = Profile.from_seconds({"m": {"cpu0": 1e-4, "cpu1": 1e-4}})

    def ask(seed: int) -> bool:
        feed = example.model.sample_inputs(seed=seed, batch=1 + seed % 3)
        outputs = engine.submit("m", feed).result(WAIT_S)
        return all(
            np.allclose(outputs[name], expected, rtol=1e-5, atol=1e-6)
            for name, expected in example.reference(feed).items()
        )

    with (
        Engine({"m": example.model}, processors=cores, profile=profile) as engine,
        ThreadPoolExecutor(8) as pool,
    ):
        assert all(pool.map(ask, range(400)))


def test_leaving_the_block_answers_everything_that_was_submitted() -> None:
    with null_engine("p0", "p1") as engine:
        futures = [engine.submit("m", FEED) for _ in range(500)]
    assert all(future.done() and future.exception() is None for future in futures)


def test_stopping_without_drain_answers_what_waits_with_closed() -> None:
    faults = Faults()
    faults.hang()
    engine = null_engine(faults=faults)
    running = engine.submit("m", FEED)
    assert faults.wait_until_hanging()
    waiting = [engine.submit("m", FEED) for _ in range(5)]
    stopper = threading.Thread(target=lambda: engine.stop(drain=False))
    stopper.start()
    for future in waiting:
        assert isinstance(future.exception(WAIT_S), ClosedError)
    faults.release()
    stopper.join(WAIT_S)
    assert running.exception(WAIT_S) is None


def test_a_stop_that_runs_out_of_time_still_answers_everything() -> None:
    faults = Faults()
    faults.hang()
    engine = null_engine(faults=faults)
    stuck = engine.submit("m", FEED)
    assert faults.wait_until_hanging()
    engine.stop(timeout_s=0.01)
    assert isinstance(stuck.exception(0), ClosedError)
    faults.release()


def test_submitting_to_a_stopped_engine_is_refused() -> None:
    engine = null_engine()
    engine.stop()
    engine.stop()
    with pytest.raises(ClosedError, match="stopping"):
        engine.submit("m", FEED)


@pytest.mark.parametrize(
    ("name", "feed", "options", "error", "message"),
    [
        ("x", FEED, {}, UnknownNameError, "unknown model 'x'.*Known: m"),
        ("m", {"nope": FEED["x"]}, {}, InputError, "nope"),
        ("m", {"x": FEED["x"].astype(np.float64)}, {}, InputError, "float64"),
        ("m", {"x": FEED["x"][:, :1]}, {}, InputError, "x"),
        ("m", FEED, {"deadline_s": -1.0}, ConfigurationError, "deadline_s"),
        ("m", FEED, {"deadline_s": float("nan")}, ConfigurationError, "deadline_s"),
        ("m", FEED, {"on_late": "skip"}, ConfigurationError, "on_late"),
    ],
)
def test_bad_input_is_refused_at_once_and_named(name, feed, options, error, message) -> None:
    with null_engine() as engine:
        with pytest.raises(error, match=message):
            engine.submit(name, feed, **options)
        assert engine.n_unanswered == 0


def test_a_failing_run_is_retried_on_another_processor() -> None:
    faults = Faults()
    faults.fail(processor="p0", times=1)
    with null_engine("p0", "p1", faults=faults) as engine:
        futures = [engine.submit("m", FEED) for _ in range(10)]
        assert all(future.exception(WAIT_S) is None for future in futures)


def test_a_request_that_fails_everywhere_names_model_and_processors() -> None:
    faults = Faults()
    faults.fail(times=2)
    with null_engine("p0", "p1", faults=faults) as engine:
        error = engine.submit("m", FEED).exception(WAIT_S)
        assert "'m'" in str(error)
        assert "'p0'" in str(error)
        assert "'p1'" in str(error)
        assert engine.submit("m", FEED).exception(WAIT_S) is None


@pytest.mark.alone
def test_a_hanging_backend_is_given_up_and_the_rest_goes_on() -> None:
    faults = Faults()
    faults.hang(processor="p0")
    limits = Limits(hang_min_s=0.05, hang_factor=1.0)
    with null_engine("p0", "p1", faults=faults, limits=limits) as engine:
        futures = [engine.submit("m", FEED) for _ in range(20)]
        assert all(future.exception(WAIT_S) is None for future in futures)
        faults.release()


@pytest.mark.alone
def test_a_processor_that_hung_serves_again_once_it_comes_back() -> None:
    faults = Faults()
    faults.hang(processor="p0")
    limits = Limits(hang_min_s=0.05, hang_factor=1.0, retries=0)
    with null_engine("p0", faults=faults, limits=limits) as engine:
        lost = engine.submit("m", FEED).exception(WAIT_S)
        assert "no result after" in str(lost)
        faults.release()
        served = False
        while not served:  # the late thread restores its processor when it returns
            served = engine.submit("m", FEED).exception(WAIT_S) is None
    assert served


def test_a_worker_that_dies_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    class Killer(BaseException):
        pass

    killed = threading.Event()
    run = NullSession.run

    def run_or_die(session: NullSession, inputs: Tensors) -> dict[str, Tensor]:
        if not killed.is_set():
            killed.set()
            raise Killer
        return run(session, inputs)

    monkeypatch.setattr(NullSession, "run", run_or_die)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    with null_engine("p0", limits=Limits(retries=0)) as engine:
        error = engine.submit("m", FEED).exception(WAIT_S)
        assert "worker died: Killer" in str(error)
        while engine.submit("m", FEED).exception(WAIT_S) is not None:
            pass


def test_a_policy_that_raises_fails_what_waits_and_is_named() -> None:
    class Broken(Policy):
        def rank(self, request):
            return 0

        def decide(self, view):
            raise ZeroDivisionError("oops")

    with null_engine(policy=Broken()) as engine:
        error = engine.submit("m", FEED).exception(WAIT_S)
        assert isinstance(error, PolicyError)
        assert "Broken" in str(error)
        assert "oops" in str(error)


def test_every_future_of_a_broken_policy_raises_an_error_of_its_own() -> None:
    class Broken(Policy):
        def rank(self, request):
            return 0

        def decide(self, view):
            if view.n_waiting > 1:
                raise ZeroDivisionError("oops")
            return []

    with null_engine(policy=Broken()) as engine:
        futures = [engine.submit("m", FEED) for _ in range(2)]
        one, other = (future.exception(WAIT_S) for future in futures)
        assert one is not other
        assert str(one) == str(other)
        assert isinstance(one.__cause__, ZeroDivisionError)


def test_a_bug_in_the_core_still_answers_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = null_engine()

    def broken(event, now):
        raise KeyError("bug")

    monkeypatch.setattr(engine._core, "handle", broken)
    error = engine.submit("m", FEED).exception(WAIT_S)
    assert "the engine failed: KeyError" in str(error)
    engine.stop(timeout_s=1.0)


def test_a_callback_of_a_cancelled_request_may_cancel_others() -> None:
    faults = Faults()
    faults.hang()
    with null_engine(faults=faults) as engine:
        engine.submit("m", FEED)
        assert faults.wait_until_hanging()
        one, other = engine.submit("m", FEED), engine.submit("m", FEED)
        one.add_done_callback(lambda _: other.cancel())
        thread = threading.Thread(target=one.cancel, daemon=True)
        thread.start()
        thread.join(WAIT_S)
        assert not thread.is_alive()
        assert one.cancelled()
        assert other.cancelled()
        faults.release()


def test_a_model_can_be_unloaded_after_a_stop_that_gave_up() -> None:
    faults = Faults()
    faults.hang()
    engine = null_engine(faults=faults)
    engine.submit("m", FEED)
    assert faults.wait_until_hanging()
    engine.stop(timeout_s=0.01)
    thread = threading.Thread(target=engine.unload, args=("m",), daemon=True)
    thread.start()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    faults.release()


def test_waiting_requests_can_be_cancelled_and_running_ones_not() -> None:
    faults = Faults()
    faults.hang()
    with null_engine(faults=faults) as engine:
        running = engine.submit("m", FEED)
        assert faults.wait_until_hanging()
        waiting = engine.submit("m", FEED)
        assert not running.cancel()
        assert waiting.cancel()
        assert waiting.cancel()
        assert wait([waiting], WAIT_S).done == {waiting}
        with pytest.raises(CancelledError):
            waiting.result(0)
        faults.release()
        assert running.exception(WAIT_S) is None
        assert engine.drain(WAIT_S)


def test_the_admission_limit_rejects_with_a_clear_reason() -> None:
    faults = Faults()
    faults.hang()
    with null_engine(faults=faults, limits=Limits(max_waiting=2)) as engine:
        engine.submit("m", FEED)
        assert faults.wait_until_hanging()
        kept = [engine.submit("m", FEED) for _ in range(2)]
        error = engine.submit("m", FEED).exception(WAIT_S)
        assert isinstance(error, RejectedError)
        assert "admission limit" in str(error)
        faults.release()
        assert all(future.exception(WAIT_S) is None for future in kept)


def test_a_droppable_request_is_dropped_at_its_deadline() -> None:
    faults = Faults()
    faults.hang()
    with null_engine(faults=faults) as engine:
        engine.submit("m", FEED)
        assert faults.wait_until_hanging()
        late = engine.submit("m", FEED, deadline_s=0.02, on_late="drop")
        assert isinstance(late.exception(WAIT_S), DroppedError)
        kept = engine.submit("m", FEED, deadline_s=0.02)
        faults.release()
        assert kept.exception(WAIT_S) is None


def test_callbacks_may_submit_however_long_the_chain() -> None:
    done = threading.Event()
    left = 5_000

    def again(_: Future) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            done.set()
        elif left > 0:
            engine.submit("m", FEED).add_done_callback(again)

    with null_engine("p0", "p1") as engine:
        for _ in range(4):
            engine.submit("m", FEED).add_done_callback(again)
        assert done.wait(WAIT_S)


def test_models_can_be_loaded_and_unloaded_while_others_run() -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def ask() -> None:
        while not stop.is_set():
            error = engine.submit("m", FEED).exception(WAIT_S)
            if error is not None:
                failures.append(error)

    with null_engine("p0") as engine:
        thread = threading.Thread(target=ask)
        thread.start()
        for _ in range(20):
            engine.load("extra", MODEL, Profile.from_seconds({"extra": {"p0": 1e-4}}))
            assert engine.submit("extra", FEED).exception(WAIT_S) is None
            engine.unload("extra")
            with pytest.raises(UnknownNameError):
                engine.submit("extra", FEED)
        stop.set()
        thread.join(WAIT_S)
        assert engine.models == ("m",)
    assert failures == []


def test_unloading_answers_what_waits_and_finishes_what_runs() -> None:
    faults = Faults()
    faults.hang()
    with null_engine(faults=faults) as engine:
        running = engine.submit("m", FEED)
        assert faults.wait_until_hanging()
        waiting = engine.submit("m", FEED)
        unloader = threading.Thread(target=lambda: engine.unload("m"))
        unloader.start()
        assert isinstance(waiting.exception(WAIT_S), ClosedError)
        faults.release()
        assert running.exception(WAIT_S) is None
        unloader.join(WAIT_S)
        assert engine.models == ()


def test_unloading_may_answer_what_waits_first() -> None:
    faults = Faults()
    faults.hang()
    with null_engine(faults=faults) as engine:
        asked = [engine.submit("m", FEED) for _ in range(20)]
        assert faults.wait_until_hanging()
        unloader = threading.Thread(target=lambda: engine.unload("m", drain=True))
        unloader.start()
        while engine.models:
            time.sleep(1e-3)
        with pytest.raises(UnknownNameError):
            engine.submit("m", FEED)
        assert not any(future.done() for future in asked)
        faults.release()
        assert [future.exception(WAIT_S) for future in asked] == [None] * 20
        unloader.join(WAIT_S)
        assert not unloader.is_alive()
        assert not engine.plan.models


def test_what_is_not_answered_when_the_time_is_up_is_turned_away() -> None:
    faults = Faults()
    faults.hang()
    with null_engine(faults=faults) as engine:
        running, waiting = engine.submit("m", FEED), engine.submit("m", FEED)
        assert faults.wait_until_hanging()
        thread = threading.Thread(target=partial(engine.unload, "m", drain=True, timeout_s=0.01))
        thread.start()
        assert isinstance(waiting.exception(WAIT_S), ClosedError)
        faults.release()
        assert running.exception(WAIT_S) is None
        thread.join(WAIT_S)
        assert engine.models == ()
        with pytest.raises(ConfigurationError, match="timeout_s"):
            engine.unload("m", drain=True, timeout_s=-1.0)


def test_an_unload_that_drains_ends_with_the_engine() -> None:
    faults = Faults()
    faults.hang()
    engine = null_engine(faults=faults)
    asked = [engine.submit("m", FEED) for _ in range(2)]
    assert faults.wait_until_hanging()
    thread = threading.Thread(target=partial(engine.unload, "m", drain=True), daemon=True)
    thread.start()
    while engine.models:
        time.sleep(1e-3)
    engine.stop(timeout_s=0.01)
    assert all(future.done() for future in asked)
    thread.join(WAIT_S)
    assert not thread.is_alive()
    faults.release()


def test_a_name_that_is_taken_and_a_model_without_profile_are_refused() -> None:
    with null_engine() as engine:
        with pytest.raises(ConfigurationError, match="choose another name"):
            engine.load("m", MODEL, Profile())
        with pytest.raises(ConfigurationError, match="measure it"):
            engine.load("n", MODEL, Profile())


def test_an_engine_without_processors_or_with_equal_names_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        Engine({}, processors=[], profile=Profile())
    twins = [Processor(name="p", backend="null", units=frozenset({"u"}))] * 2
    with pytest.raises(ConfigurationError, match="same name"):
        Engine({}, processors=twins, profile=Profile())


def test_asyncio_can_await_the_future() -> None:
    async def ask() -> int:
        answers = [asyncio.wrap_future(engine.submit("m", FEED)) for _ in range(20)]
        return len(await asyncio.gather(*answers))

    with null_engine() as engine:
        assert asyncio.run(ask()) == 20


def test_a_batch_of_several_requests_in_one_execution_is_split_again() -> None:

    class AllAtOnce(Policy):
        def rank(self, request):
            return request.arrival_s

        def decide(self, view):
            for lane, able in view.startable()[:1]:
                yield Start(able[0], tuple(lane.in_order()))

    example = tiny_linear()
    cpu = Processor(name="cpu0", backend="onnxruntime", units=frozenset({"core0"}))
    profile = Profile.from_seconds({"m": {"cpu0": 1e-4}})
    feeds = [example.model.sample_inputs(seed=seed) for seed in range(50)]
    with Engine(
        {"m": example.model}, processors=[cpu], profile=profile, policy=AllAtOnce()
    ) as engine:
        answers = [engine.submit("m", feed) for feed in feeds]
        for feed, answer in zip(feeds, answers, strict=True):
            for name, expected in example.reference(feed).items():
                np.testing.assert_allclose(
                    answer.result(WAIT_S)[name], expected, rtol=1e-5, atol=1e-6
                )


def test_an_observer_sees_every_step() -> None:
    class Counter:
        arrived = 0
        replied = 0

        def observe(self, event, commands, now):
            self.arrived += isinstance(event, Arrived)
            self.replied += sum(type(c).__name__ == "Reply" for c in commands)

    counter = Counter()
    with null_engine(observer=counter) as engine:
        for _ in range(10):
            engine.infer("m", FEED)
    assert (counter.arrived, counter.replied) == (10, 10)


def test_no_thread_is_left_behind() -> None:
    before = set(threading.enumerate())
    with null_engine("p0", "p1") as engine:
        engine.infer("m", FEED)
    assert {t for t in threading.enumerate() if t.name.startswith("coinfer")} <= before


def test_stopping_does_not_wait_for_a_run_that_hangs_for_ever() -> None:
    faults = Faults()
    faults.hang(processor="p0")
    limits = Limits(hang_min_s=0.05, hang_factor=1.0)
    stopped = threading.Event()

    def use() -> None:
        with null_engine("p0", "p1", faults=faults, limits=limits) as engine:
            for future in [engine.submit("m", FEED) for _ in range(10)]:
                assert future.exception(WAIT_S) is None
        stopped.set()

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    assert stopped.wait(WAIT_S), "stop() waits for a thread that nobody waits for any more"
    faults.release()


def test_a_stop_that_runs_out_of_time_starts_nothing_more() -> None:
    faults = Faults()
    faults.hang()
    engine = null_engine(faults=faults)
    running, waiting = engine.submit("m", FEED), engine.submit("m", FEED)
    assert faults.wait_until_hanging()
    engine.stop(timeout_s=0.01)
    faults.release()
    assert isinstance(running.exception(WAIT_S), ClosedError)
    assert isinstance(waiting.exception(WAIT_S), ClosedError)
    assert engine.fault is None


def test_an_observer_that_raises_is_detached_and_everything_goes_on() -> None:
    class Broken:
        def observe(self, event, commands, now):
            raise ValueError("no")

    with null_engine(observer=Broken()) as engine:
        assert engine.submit("m", FEED).exception(WAIT_S) is None
        assert any("Broken" in warning for warning in engine.warnings)
        assert engine.fault is None


@pytest.mark.parametrize(
    ("what", "arguments"), [("stop", ()), ("drain", ()), ("warm_up", ("m", FEED))]
)
def test_waiting_in_a_callback_for_itself_is_refused(
    what: str, arguments: tuple[object, ...]
) -> None:
    refused: list[BaseException] = []
    done = threading.Event()

    def wait_for_itself(_: Future) -> None:
        try:
            getattr(engine, what)(*arguments)
        except ConfigurationError as error:
            refused.append(error)
        done.set()

    with null_engine(service_s=0.01) as engine:
        engine.submit("m", FEED).add_done_callback(wait_for_itself)
        assert done.wait(WAIT_S)
    assert len(refused) == 1
    assert f"{what}() in a callback" in str(refused[0])


def test_a_stopped_engine_takes_no_model() -> None:
    engine = null_engine()
    engine.stop()
    with pytest.raises(ClosedError):
        engine.load("n", MODEL, Profile.from_seconds({"n": {"p0": 1e-4}}))
    assert engine.models == ("m",)


def test_given_backends_may_have_any_name() -> None:
    mine = Processor(name="a", backend="mine", units=frozenset({"a"}))
    profile = Profile.from_seconds({"m": {"a": 1e-4}})
    backends = {"mine": NullBackend()}
    with Engine({"m": MODEL}, processors=[mine], profile=profile, backends=backends) as engine:
        assert engine.submit("m", FEED).result(WAIT_S).keys() == {s.name for s in MODEL.outputs}
        engine.load("n", MODEL, Profile.from_seconds({"n": {"a": 1e-4}}))
