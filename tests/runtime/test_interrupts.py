"""An exception of a signal handler, wherever it comes, leaves nothing of the engine half done."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import suppress

import pytest

from coinfer.api import Engine
from coinfer.backends.null import Faults
from coinfer.errors import UnknownNameError
from coinfer.machine.profile import Profile
from runtime.engines import FEED, MODEL, null_engine
from runtime.interrupting import RUNTIME, each_point

WAIT_S = 20.0
PROFILE = Profile.from_seconds({"extra": {"p0": 1e-4, "p1": 1e-4}})


def check_works(engine: Engine) -> None:
    """It serves, in this thread and in others, and nothing that was asked is left."""
    assert engine.submit("m", FEED).exception(WAIT_S) is None
    errors: list[BaseException | None] = []
    other = threading.Thread(
        target=lambda: errors.append(engine.submit("m", FEED).exception(WAIT_S)), daemon=True
    )
    other.start()
    other.join(WAIT_S)
    assert errors == [None]
    assert engine.drain(WAIT_S)
    assert engine.n_unanswered == 0
    assert engine.fault is None


def counted(futures: list[Future[object]], answers: list[object], future: Future[object]) -> None:
    futures.append(future)
    future.add_done_callback(answers.append)


def test_submit_takes_a_request_or_does_not() -> None:
    with null_engine("p0", "p1") as engine:
        points = [*each_point(lambda: engine.submit("m", FEED, deadline_s=9.0, priority=2))]
        check_works(engine)
        for _ in each_point(lambda: engine.submit("m", FEED)):
            check_works(engine)
    assert len(points) > 10


def test_infer_leaves_no_lock_taken() -> None:
    with null_engine("p0", "p1", service_s=1e-3) as engine:
        for _ in each_point(lambda: engine.infer("m", FEED, timeout_s=WAIT_S)):
            check_works(engine)


def test_a_future_is_cancelled_or_not_and_callbacks_are_called_once() -> None:
    faults = Faults()
    with null_engine(faults=faults) as engine:
        futures: list[Future[object]] = []
        answers: list[object] = []
        faults.hang()
        running = engine.submit("m", FEED)
        assert faults.wait_until_hanging()

        def cancel() -> None:
            futures[-1].cancel()

        def ask() -> None:
            counted(futures, answers, engine.submit("m", FEED))

        ask()
        for _ in each_point(cancel):
            ask()
        faults.release()
        assert running.exception(WAIT_S) is None
        check_works(engine)
    assert all(future.done() for future in futures)
    assert sorted(map(id, answers)) == sorted(map(id, futures))


def test_load_does_all_or_nothing() -> None:
    with null_engine("p0", "p1") as engine:
        for _ in each_point(lambda: engine.load("extra", MODEL, PROFILE), where=RUNTIME):
            if "extra" in engine.models:
                assert engine.submit("extra", FEED).exception(WAIT_S) is None
            else:
                engine.load("extra", MODEL, PROFILE)
            assert set(engine.plan.models) == set(engine.models) == {"m", "extra"}
            engine.unload("extra")
        check_works(engine)


def test_unload_is_done_or_can_be_done_again() -> None:
    with null_engine("p0", "p1") as engine:
        engine.load("extra", MODEL, PROFILE)
        for at in each_point(lambda: engine.unload("extra"), where=RUNTIME):
            if "extra" not in engine.models and at % 2:  # else loading finishes it
                with suppress(UnknownNameError):  # it was done
                    engine.unload("extra")
            if "extra" not in engine.models:
                engine.load("extra", MODEL, PROFILE)
            assert engine.submit("extra", FEED).exception(WAIT_S) is None
        check_works(engine)
        assert engine.models == ("m",)


def test_an_unload_that_drains_can_be_left() -> None:
    answers: list[object] = []
    with null_engine("p0", service_s=1e-3) as engine:
        engine.load("extra", MODEL, PROFILE)
        asked = [engine.submit("extra", FEED)]
        for _ in each_point(lambda: engine.unload("extra", drain=True), where=RUNTIME):
            with suppress(UnknownNameError):  # it was done
                engine.unload("extra", drain=True)
            answers.append(asked[-1].exception(WAIT_S))
            engine.load("extra", MODEL, PROFILE)
            asked.append(engine.submit("extra", FEED))
        check_works(engine)
    assert answers == [None] * len(answers)


def test_drain_can_be_left() -> None:
    with null_engine("p0", service_s=1e-3) as engine:

        def ask_and_drain() -> None:
            engine.drain(WAIT_S)

        engine.submit("m", FEED)
        for _ in each_point(ask_and_drain):
            engine.submit("m", FEED)
        check_works(engine)


@pytest.mark.parametrize("drain", [True, False])
def test_a_stop_that_is_left_can_be_called_again(drain: bool) -> None:
    futures: list[Future[object]] = []
    answers: list[object] = []
    engines: list[Engine] = []
    threads = {*threading.enumerate()}

    def make() -> None:
        engine = null_engine("p0", "p1", service_s=1e-4)
        for _ in range(4):
            counted(futures, answers, engine.submit("m", FEED))
        engines.append(engine)

    make()
    for _ in each_point(lambda: engines[-1].stop(drain=drain)):
        engines[-1].stop(drain=drain)
        assert all(future.done() for future in futures[-4:])
        make()
    engines[-1].stop()
    assert sorted(map(id, answers)) == sorted(map(id, futures))
    for thread in {*threading.enumerate()} - threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
