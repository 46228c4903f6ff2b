"""The driver submits what is due, not before it is due, and keeps closed loops full."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty
from typing import Any

import pytest

from coinfer.api import Engine
from coinfer.backends.null import Faults
from coinfer.core.commands import Command, Run
from coinfer.core.dispatcher import Limits
from coinfer.core.events import Arrived, Event
from coinfer.core.request import Request
from coinfer.runtime import clock, load_generator
from coinfer.runtime.apart import do_apart
from coinfer.runtime.load_generator import LoadGenerator
from coinfer.workload.load import Load
from coinfer.workload.scenario_file import parse_scenario
from runtime.engines import FEED, MODEL, null_engine
from runtime.noting import Noting, noting_engine

pytestmark = pytest.mark.alone


class Arrivals:
    """Notes when each request came in."""

    def __init__(self) -> None:
        self.requests: list[tuple[Request, float]] = []

    def observe(self, event: Event, commands: list[Command], now: float) -> None:
        if isinstance(event, Arrived):
            self.requests.append((event.request, now))


def play(
    arrivals: str,
    times: str = "duration: 0.1\nwarmup: 0\n",
    models: str = "{m: x.onnx}",
    on_tick: Callable[[LoadGenerator, float], bool] = lambda driver, now_s: True,
    engine: Callable[..., Engine] = null_engine,
    attends: bool = False,
    **options: Any,
) -> tuple[list[tuple[Request, float]], LoadGenerator]:
    scenario = parse_scenario(f"models: {models}\narrivals: {arrivals}\n{times}")
    seen = Arrivals()
    names = dict.fromkeys(scenario.models, MODEL)
    with engine(models=names, observer=seen, **options) as running:
        driver = LoadGenerator(
            running,
            Load(scenario),
            {name: [FEED] for name in names},
            scenario.models,
            running.attend if attends else None,
        )
        driver.play(lambda now_s: on_tick(driver, now_s))
        driver.stop()
    return seen.requests, driver


def test_periodic_requests_come_at_their_time_and_never_before() -> None:
    seen, driver = play("{m: {periodic: 100/s}}")
    due = [request.arrival_s - driver.start_s for request, _ in seen]
    assert due == pytest.approx([index / 100 for index in range(10)], abs=1e-6)
    assert all(now >= request.arrival_s for request, now in seen)


def test_a_closed_loop_keeps_the_asked_number_in_flight() -> None:
    # Long enough that a machine that stalls for a while still serves a few.
    seen, _ = play("{m: {closed: 3}}", "duration: 2\nwarmup: 0\n", service_s=0.001)
    first = [request for request, _ in seen[:3]]
    assert len(seen) > 6
    assert len({request.arrival_s for request in first}) == 1


def test_requests_carry_the_promises_of_their_model() -> None:
    models = "{m: {source: x.onnx, deadline: 50ms, on_late: drop, priority: 7}}"
    seen, _ = play("{m: {periodic: 100/s}}", models=models)
    for request, _ in seen:
        assert request.deadline_s == pytest.approx(request.arrival_s + 0.05)
        assert (request.priority, request.on_late.value) == (7, "drop")


def test_a_refused_closed_loop_asks_again_soon_and_not_without_end() -> None:
    faults = Faults()
    faults.hang()

    def tick(_driver: LoadGenerator, now_s: float) -> bool:
        if now_s > 0.05:
            faults.release()
        return True

    seen, _ = play("{m: {closed: 4}}", faults=faults, limits=Limits(max_waiting=1), on_tick=tick)
    # Two are refused at a time, each again after a millisecond: not a handful, not thousands.
    assert 20 < len(seen) < 5000


def test_a_load_without_an_end_is_over_when_all_is_submitted() -> None:
    seen, driver = play("{offline: {counts: {m: 25}}}", times="")
    assert len(seen) == 25
    assert driver._load.end_s == math.inf


def test_the_tick_can_stop_the_load() -> None:
    seen, _ = play("{m: {periodic: 1000/s}}", on_tick=lambda driver, now_s: False)
    assert seen == []


def test_stopping_from_another_thread_ends_a_long_load() -> None:
    timers: list[threading.Timer] = []

    def tick(driver: LoadGenerator, _now_s: float) -> bool:
        if not timers:
            timers.append(threading.Timer(0.0, driver.stop))
            timers[0].start()
        return True

    begun_s = clock.now()
    play("{m: {periodic: 10/s}}", times="duration: 1h\n", on_tick=tick)
    timers[0].join()
    assert clock.now() - begun_s < 20.0


def test_an_engine_that_closes_ends_the_load() -> None:
    def closing(**options: Any) -> Engine:
        engine = null_engine(**options)
        engine.stop()
        return engine

    seen, _ = play("{m: {periodic: 100/s}}", engine=closing)
    assert seen == []


def test_it_gives_up_its_claim_on_a_core_before_it_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr(load_generator, "give_up_lag", lambda: calls.append(None))
    seen, _ = play("{m: {periodic: 100/s}}")
    assert len(calls) >= len(seen) - 1 > 0  # the first is due at once


class _Virtual:
    """A clock that only waiting moves, and a queue whose waits move it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._items: deque[Any] = deque()
        self.put, self.empty = self._items.append, lambda: not self._items

    def get(self, timeout: float) -> Any:
        if self._items:
            return self._items.popleft()
        self.now_s += timeout
        raise Empty


class _Submitted:
    """Takes requests and never answers; notes when each was due, and when it came."""

    def __init__(self, virtual: _Virtual) -> None:
        self.virtual = virtual
        self.seen: list[tuple[float, float]] = []

    def submit(self, *_: object, due_s: float | None = None, **__: object) -> Future[Any]:
        assert due_s is not None
        self.seen.append((due_s, self.virtual.now_s))
        return Future()


def test_what_yielding_takes_makes_no_request_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker on the same core runs for milliseconds when the thread that submits yields to it."""
    virtual = _Virtual()

    def yields() -> None:
        virtual.now_s += 0.004

    monkeypatch.setattr(load_generator, "give_up_lag", yields)
    monkeypatch.setattr(load_generator, "SimpleQueue", lambda: virtual)
    monkeypatch.setattr(clock, "now", lambda: virtual.now_s)
    scenario = parse_scenario(
        "models: {m: x.onnx}\narrivals: {m: {periodic: 30/s}}\nduration: 1\nwarmup: 0\n"
    )
    submitted = _Submitted(virtual)
    driver = LoadGenerator(submitted, Load(scenario), {"m": [FEED]}, scenario.models)
    driver.play(lambda _now_s: True)
    assert len(submitted.seen) == 30
    assert all(came_s - due_s < 0.001 for due_s, came_s in submitted.seen[1:])


def test_a_thread_that_attends_performs_brief_runs_once_all_that_is_due_is_submitted() -> None:
    backend = Noting()
    log = list[str]()

    class Watch:
        def observe(self, event: Event, commands: list[Command], _now: float) -> None:
            log.append(type(event).__name__)
            log.extend(type(command).__name__ for command in commands if type(command) is Run)

    def act() -> None:
        play(
            "{m: {periodic: 20/s}, n: {periodic: 20/s}}",
            "duration: 0.1\nwarmup: 0\n",
            "{m: x.onnx, n: y.onnx}",
            engine=lambda **given: noting_engine(
                backend, models=tuple(given["models"]), observer=Watch()
            ),
            attends=True,
        )

    thread = threading.Thread(target=act, name="plays")
    thread.start()
    thread.join(20.0)
    assert backend.threads == ["plays"] * 4
    began = log.index("ArrivedTogether")
    assert log[began : began + 3] == ["ArrivedTogether", "Arrived", "Run"]


class _Attended:
    """Takes requests, and answers them when the thread that submitted them attends."""

    def __init__(self) -> None:
        self.answered: list[str] = []
        self._open: list[tuple[str, Future[Any]]] = []
        self._soon: Callable[[Callable[[], None]], object] | None = None

    def attend(self, _thread: int, soon: Callable[[Callable[[], None]], object] | None) -> None:
        self._soon = soon

    def submit(self, name: str, _inputs: Any, **_options: Any) -> Future[Any]:
        assert self._soon is not None
        future = Future[Any]()
        self._open.append((name, future))
        self._soon(self._answer)
        return future

    def _answer(self) -> None:
        for name, future in [self._open.pop() for _ in list(self._open)]:
            self.answered.append(name)
            future.set_result(None)


def test_what_its_answers_have_it_submit_is_attended_before_it_sleeps() -> None:
    scenario = parse_scenario(
        "models: {a: x.onnx, b: x.onnx, c: x.onnx}\n"
        "arrivals: {a: {periodic: 1/s}, b: {after: a}, c: {after: b}}\n"
        "duration: 0.1\nwarmup: 0\n"
    )
    engine = _Attended()
    feeds = {name: [FEED] for name in scenario.models}
    driver = LoadGenerator(engine, Load(scenario), feeds, scenario.models, engine.attend)
    driver.play(lambda _now_s: True)
    assert engine.answered == ["a", "b", "c"]


class _Hanging:
    """Takes requests; what it has a thread perform does not return until it is let go."""

    def __init__(self) -> None:
        self.submitted = 0
        self.go_on = threading.Event()
        self.left = threading.Event()
        self._soon: Callable[[Callable[[], None]], object] | None = None

    def attend(self, _thread: int, soon: Callable[[Callable[[], None]], object] | None) -> None:
        self._soon = soon
        if soon is None:
            self.left.set()

    def submit(self, _name: str, _inputs: Any, **_options: Any) -> Future[Any]:
        self.submitted += 1
        if self._soon is not None and self.submitted == 2:
            self._soon(lambda: assert_true(self.go_on.wait(20.0)))
        future = Future[Any]()
        future.set_result(None)
        return future


def assert_true(value: object) -> None:
    assert value


def test_another_thread_goes_on_where_a_run_that_is_performed_does_not_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load_generator, "_STUCK_S", 0.02)
    scenario = parse_scenario(
        "models: {m: x.onnx}\narrivals: {m: {periodic: 100/s}}\nduration: 0.5\nwarmup: 0\n"
    )
    engine = _Hanging()
    feeds = {"m": [FEED]}
    driver = LoadGenerator(engine, Load(scenario), feeds, scenario.models, engine.attend)
    act = partial(driver.play, lambda _now_s: True)
    do_apart(act, lambda: True, driver.stop, "plays", driver.is_stuck)
    assert engine.submitted == 50
    engine.go_on.set()
    assert engine.left.wait(20.0)  # the first one comes back, and leaves
    assert engine.submitted == 50
