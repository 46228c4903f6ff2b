"""An engine that chooses its policy: it notes what comes, is advised, changes, and ends cleanly."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coinfer.api import Engine
from coinfer.api.policy_thread import PolicyThread
from coinfer.backends.null import NullBackend
from coinfer.core.limits import Limits
from coinfer.core.request import Request
from coinfer.errors import ConfigurationError, PolicyError, UnknownNameError
from coinfer.experiments.auto_policy import AutoPolicy
from coinfer.experiments.policy_controller import Due, Tally, Verdict
from coinfer.experiments.policy_review import Advice, Review
from coinfer.machine.profile import Profile
from coinfer.plan import Plan, PolicyChoice
from coinfer.plan.choice import Choice
from coinfer.planner.column_review import ColumnAdvice
from coinfer.replay import LogHeader, recording, replay
from coinfer.runtime import clock
from coinfer.runtime.engine_warnings import EngineWarnings
from runtime.engines import FEED, MODEL, cpus, null_engine
from sim.machines import machine

FCFS, EDF = PolicyChoice(name="fcfs"), PolicyChoice(name="edf")
WHY = Choice("auto", "why")
PATIENCE_S = 30.0


def until(condition: Callable[[], bool]) -> bool:
    """Wait for something that happens in another thread."""
    until_s = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < until_s:
        time.sleep(0.005)
    return condition()


class Bystander:
    """What the thread sees of an engine."""

    def __init__(self) -> None:
        self.plan = Plan.of(machine({"m": {"p": 0.01}}), policy=FCFS)
        self.warnings = EngineWarnings()
        self.verdicts: list[Verdict] = []

    def tallies(self) -> dict[str, Tally]:
        return {}

    def column_review(self, _due: Due, _margin: float) -> None:
        return None

    def settle_columns(self, _thread: PolicyThread, _advice: ColumnAdvice) -> None:
        raise AssertionError("nothing can move")

    def settle(self, _thread: PolicyThread, verdict: Verdict) -> None:
        self.plan = self.plan.with_policy(verdict.policy, verdict.why)
        self.verdicts.append(verdict)


class Adviser:
    """Advises what it was told to, one after the other, and keeps what was asked."""

    def __init__(self, *advices: Advice | Exception) -> None:
        self.advices = list(advices)
        self.asked: list[Review] = []

    def __call__(self, asked: Review, limit_s: float, _started: object) -> Advice:
        assert limit_s > 0
        self.asked.append(asked)
        advice = self.advices.pop(0) if self.advices else Advice(asked.plan.policy, 0.0, "", 0)
        if isinstance(advice, Exception):
            raise advice
        return advice


@pytest.fixture
def looped() -> Iterator[Callable[..., PolicyThread]]:
    """Start the thread of an engine, which looks every hundredth of a second, and end it."""
    threads = list[PolicyThread]()

    def make(engine: Bystander, adviser: Adviser) -> PolicyThread:
        limits = Limits(max_waiting=9)
        thread = PolicyThread(engine, AutoPolicy(interval_s=0.06), limits, adviser)
        threads.append(thread)
        thread.start()
        return thread

    yield make
    for thread in threads:
        thread.leave()
        thread.wait_until_left()


def feed(thread: PolicyThread, condition: Callable[[], bool]) -> bool:
    """Note requests until something has happened."""
    request = Request(0, "m", 0.0)

    def note() -> bool:
        for _ in range(100):
            thread.controller.seen.note(request._replace(arrival_s=clock.now()))
        return condition()

    return until(note)


def test_what_was_advised_is_done_if_the_gain_is_large_enough(
    looped: Callable[..., PolicyThread],
) -> None:
    engine, adviser = Bystander(), Adviser(Advice(EDF, 0.01, "", 0), Advice(EDF, 0.5, "ever", 0))
    thread = looped(engine, adviser)
    assert feed(thread, lambda: len(engine.verdicts) >= 3)
    assert [each.policy for each in engine.verdicts[:3]] == [FCFS, EDF, EDF]
    assert [each.plan.policy for each in adviser.asked[:3]] == [FCFS, FCFS, EDF]
    assert "edf, 50.0% better than fcfs on the " in engine.verdicts[1].why.what
    assert engine.verdicts[1].why.what.endswith(": ever")
    assert adviser.asked[0].limits == Limits(max_waiting=9)
    assert len(adviser.asked[0].requests) >= 50


def test_a_review_that_fails_is_logged_once_and_the_policy_stays(
    looped: Callable[..., PolicyThread], caplog: pytest.LogCaptureFixture
) -> None:
    engine = Bystander()
    adviser = Adviser(PolicyError("it broke"), PolicyError("again"), Advice(EDF, 1.0, "", 0))
    with caplog.at_level(logging.WARNING):
        thread = looped(engine, adviser)
        assert feed(thread, lambda: bool(engine.verdicts))
    assert engine.plan.policy == EDF
    assert list(engine.warnings) == ["the policy could not be reviewed and stays fcfs: again"]
    assert [record.message for record in caplog.records] == [
        "the policy could not be reviewed and stays fcfs: it broke"
    ]


def sleeping() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


def test_leaving_kills_the_process_and_ends_the_thread(looped: Callable[..., Any]) -> None:
    engine, children = Bystander(), list[subprocess.Popen[bytes]]()

    class Slow(Adviser):
        def __call__(self, asked: Review, limit_s: float, started: Any) -> Advice:
            child = sleeping()
            children.append(child)
            started(child)
            child.wait()
            raise PolicyError("it was killed")

    thread = looped(engine, Slow())
    assert feed(thread, lambda: bool(children))
    thread.leave()
    thread.wait_until_left()
    assert children[0].poll() is not None
    assert not engine.warnings
    assert len(children) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_the_child_of_a_fork_does_not_kill_the_process_of_its_parent() -> None:
    engine = Bystander()
    thread = PolicyThread(engine, AutoPolicy(), Limits(), Adviser())
    with sleeping() as child:
        thread._note_started(child)
        thread.forsake()
        thread.leave()
        assert child.poll() is None
        child.kill()


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "coinfer-policy"]


def test_an_engine_that_chooses_begins_with_the_default_and_notes_what_comes() -> None:
    with null_engine(policy="auto") as engine:
        assert engine.policy == PolicyChoice()
        assert engine.policy_why == ""
        thread = engine._policy_thread
        assert thread is not None
        assert thread.controller.settings == AutoPolicy()
        for _ in range(3):
            engine.infer("m", FEED, deadline_s=1.0, priority=2)
        assert engine.tallies() == {"m": Tally(3, 3)}
        assert thread.controller.seen.counts == {("m", 2, True): 3}
        assert threads()
    assert not threads()


def test_an_engine_that_does_not_choose_notes_nothing() -> None:
    with null_engine() as engine:
        assert engine._policy_thread is None
        assert engine._post == engine._event_loop.post
        assert not threads()


def test_naming_a_policy_ends_that_and_auto_begins_it_again() -> None:
    with null_engine(policy="auto") as engine:
        first = engine._policy_thread
        assert first is not None
        engine.change_policy("edf")
        assert engine._policy_thread is None
        assert engine._post == engine._event_loop.post
        engine.settle(first, Verdict(FCFS, WHY))  # which comes too late
        assert engine.policy == EDF
        engine.change_policy("auto", interval_s=5.0)
        second = engine._policy_thread
        assert second is not None
        assert second.controller.settings.interval_s == 5.0
        assert engine.policy == EDF
        with pytest.raises(UnknownNameError, match="speed"):
            engine.change_policy("edf", speed=1)
        assert engine._policy_thread is second
        engine.settle(second, Verdict(FCFS, WHY))
        assert engine.policy == FCFS
        stats = engine.stats().policy
        assert engine.policy_why == stats.why == "why"
        assert (stats.name, stats.changes) == ("fcfs", 2)
        assert engine.infer("m", FEED)
    assert not threads()


def test_an_engine_that_is_dropped_takes_its_thread_along() -> None:
    engine = null_engine(policy=AutoPolicy(interval_s=0.06))
    thread = engine._policy_thread
    assert thread is not None
    first_s = thread.controller._next_look_s
    assert until(lambda: thread.controller._next_look_s > first_s)  # it has looked at the engine
    dropped = [engine]
    del engine
    with pytest.warns(ResourceWarning, match="without stop"):
        dropped.clear()
    gc.collect()
    assert until(lambda: not threads())


def test_what_is_no_way_to_choose_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="interval_s is 0"):
        null_engine(policy=AutoPolicy(interval_s=0))
    with pytest.raises(UnknownNameError, match="autp"):
        null_engine(policy="autp")


def test_an_engine_under_load_changes_to_the_better_policy_and_its_log_replays(
    tmp_path: Path,
) -> None:
    times = {"short": 0.001, "long": 0.02}
    path = tmp_path / "run.jsonl"
    settings = AutoPolicy(interval_s=1.2, budget=1000)
    with (
        recording(path, LogHeader(policy="fcfs", processors=cpus("p0"))) as log,
        Engine(
            dict.fromkeys(times, MODEL),
            processors=cpus("p0"),
            profile=Profile.from_seconds({name: {"p0": s} for name, s in times.items()}),
            backends={"null": NullBackend(lambda model, _processor, _batch: times[model])},
            pin=False,
            policy="fcfs",
            batch="off",
            observer=log,
        ) as engine,
    ):
        engine.change_policy(settings)
        futures = []
        until_s = time.monotonic() + PATIENCE_S
        while engine.policy == FCFS and time.monotonic() < until_s:
            # Long requests that nobody waits for fill the processor; short ones are urgent.
            futures.append(engine.submit("long", FEED, deadline_s=60.0))
            futures.append(engine.submit("short", FEED, deadline_s=0.05, on_late="drop"))
            time.sleep(0.015)
        assert engine.policy != FCFS
        assert "better than fcfs on the" in engine.policy_why
        assert not engine.warnings
        engine.stop(drain=False)
    assert all(future.done() for future in futures)
    done = replay(path)
    assert done.difference is None, str(done.difference)
