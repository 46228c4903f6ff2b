"""Requests that are posted before the owner looks are decided on together."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from coinfer.backends.null import Faults
from coinfer.core.commands import Command
from coinfer.core.events import Event, Finished
from coinfer.runtime import event_loop
from coinfer.runtime.engine import Engine
from runtime.engines import FEED, cpus, null_engine

WAIT_S = 30.0


class Steps:
    """Notes the kinds of what the core is told."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def observe(self, event: Event, _commands: Sequence[Command], _now: float) -> None:
        self.kinds.append(type(event).__name__)

    @property
    def arrivals(self) -> list[str]:
        return [kind for kind in self.kinds if kind.startswith("Arrived")]


def submitted_at_once(engine: Engine, count: int) -> list[Future[Any]]:
    """Submit while the core is owned, so that none is handled before all are posted."""
    futures: list[Future[Any]] = []
    engine._event_loop.call(
        lambda: futures.extend(engine.submit("m", FEED) for _ in range(count)), WAIT_S
    )
    return futures


def answered(futures: Sequence[Future[Any]]) -> None:
    for future in futures:
        future.result(WAIT_S)


def test_all_but_the_last_say_that_another_follows() -> None:
    steps = Steps()
    with null_engine("p0", "p1", observer=steps) as engine:
        answered(submitted_at_once(engine, 3))
        engine.infer("m", FEED)
    assert steps.arrivals == ["ArrivedTogether", "ArrivedTogether", "Arrived", "Arrived"]


def test_some_start_although_more_and_more_follow() -> None:
    steps, most, faults = Steps(), event_loop._AT_ONCE, Faults()
    faults.hang()  # so that nothing ends meanwhile
    with null_engine("p0", observer=steps, faults=faults) as engine:
        futures = submitted_at_once(engine, 2 * most + 1)
        faults.release()
        answered(futures)
    assert steps.arrivals == 2 * [*(most - 1) * ["ArrivedTogether"], "Arrived"] + ["Arrived"]


def test_rows_are_counted_each_for_itself() -> None:
    """What came before says nothing of how long those that come now have waited."""
    steps = Steps()
    with null_engine("p0", observer=steps) as engine:
        for _ in range(3):
            answered(submitted_at_once(engine, 18))
    assert steps.arrivals == 3 * [*(17 * ["ArrivedTogether"]), "Arrived"]


def test_what_is_no_request_is_not_waited_for() -> None:
    steps = Steps()
    with null_engine("p0", observer=steps) as engine:
        futures: list[Future[Any]] = []

        def act() -> None:
            futures.append(engine.submit("m", FEED))
            engine._event_loop.post(lambda _answers: None)  # the core never hears of it

        engine._event_loop.call(act, WAIT_S)
        futures[0].result(WAIT_S)
    assert steps.arrivals == ["Arrived"]


def test_what_ended_is_decided_on_with_what_came_meanwhile() -> None:
    steps, faults = Steps(), Faults()
    faults.hang()
    with null_engine("p0", observer=steps, faults=faults) as engine:
        futures = [engine.submit("m", FEED)]

        def act() -> None:
            engine._event_loop.post(Finished(0, 1e-4))  # as its worker will say, too, and in vain
            futures.append(engine.submit("m", FEED))

        engine._event_loop.call(act, WAIT_S)
        faults.release()
        answered(futures)
    assert steps.kinds[:4] == ["ModelLoaded", "Arrived", "FinishedTogether", "Arrived"]


class Waiting:
    """A worker that was rung for and has not got round to it."""

    waits, retired = True, False
    processor = cpus("p0")[0]

    def __init__(self) -> None:
        self.rings = 0

    def has_no_job(self) -> bool:
        return not self.rings

    def ring(self) -> None:
        self.rings += 1


def test_one_worker_is_woken_for_all_of_them() -> None:
    with null_engine("p0") as engine:
        loop, worker, others = engine._event_loop, Waiting(), list[None]()
        engine.infer("m", FEED)
        loop.idle, loop.timer.ring = worker, lambda: others.append(None)  # type: ignore[assignment, method-assign]
        for _ in range(3):
            loop._ring()
        assert (worker.rings, others) == (1, [])
        loop.worker_pool.has_ended = True  # what it was given may be its end
        loop._ring()
        assert (worker.rings, others) == (1, [None])
        del loop.timer.ring
        loop.worker_pool.has_ended, loop.idle = False, None
