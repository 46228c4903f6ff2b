"""Which threads give way, whoever starts them: a worker that owns the core starts others."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest

from coinfer.core.commands import Execution
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span
from coinfer.runtime.span_io import SpanIO
from coinfer.runtime.worker import Job, Worker
from coinfer.runtime.worker_pool import WorkerPool
from coinfer.runtime.yielding import Yielding
from coinfer.testing.machine import request
from coinfer.threads.priority import LOWEST

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has priorities of threads"
)
PATIENCE_S = 30.0
CPU0 = Processor(name="cpu0", backend="null", units=frozenset({"core0"}))
CPU1 = Processor(name="cpu1", backend="null", units=frozenset({"core1"}))
EXPRESS = Processor(
    name="cpu1+", backend="null", units=frozenset({"core1+"}), overlays=frozenset({"core1"})
)


class Owner:
    """Asks the workers nothing."""

    idle: Worker | None = None

    def look(self) -> None: ...
    def done(self, job: object, event: object, parts: object) -> None: ...
    def left(self, worker: Worker) -> None: ...
    def returned(self, worker: Worker) -> None: ...
    def died(self, worker: Worker, reason: str) -> None: ...


class Nothing:
    """A session that computes nothing."""

    placement = None

    def run(self, _inputs: object) -> dict[str, object]:
        return {}

    def close(self) -> None: ...


def job(expected_s: float, **fields: float) -> Job:
    execution = Execution(0, "m", Span(), "cpu1", (request("m", **fields),), 0.0, expected_s)
    whole = SpanIO((), (), frozenset(), frozenset(), stacks=False, is_last=True, is_whole=True)
    return Job(execution, Nothing(), whole, ({},))  # type: ignore[arg-type]


def settled(worker: Worker) -> None:
    """Wait until a worker has done what it was given."""
    looked = threading.Event()
    worker._owner.look = looked.set  # type: ignore[method-assign]
    worker.ring()
    assert looked.wait(PATIENCE_S)


def niceness_of(worker: Worker) -> int:
    number = worker._thread.native_id
    assert number is not None
    return os.getpriority(os.PRIO_PROCESS, number)


@pytest.fixture
def a_yielding_thread() -> Callable[[Yielding], ThreadPoolExecutor]:
    def made(yielding: Yielding) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, initializer=yielding.join)

    return made


def test_an_express_worker_that_a_yielding_one_started_does_not_give_way(
    a_yielding_thread: Callable[[Yielding], ThreadPoolExecutor],
) -> None:
    yielding = Yielding()
    pool = WorkerPool(
        (CPU0, CPU1, EXPRESS),
        Owner(),
        {"cpu0": (), "cpu1": (), "cpu1+": ()},
        yielding,
    )
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with a_yielding_thread(yielding) as thread:
        thread.submit(pool.start, "cpu1").result(PATIENCE_S)
        thread.submit(pool.replace, pool.workers["cpu1+"]).result(PATIENCE_S)
        # Once it has taken a job it has marked itself, if it does.
        for name in ("cpu1", "cpu1+"):
            taken = threading.Event()
            pool.workers[name]._owner.look = taken.set  # type: ignore[method-assign]
            pool.workers[name].ring()
            assert taken.wait(PATIENCE_S)
        pool.workers["cpu1"].give(job(expected_s=1.0))
        settled(pool.workers["cpu1"])
        yielding.begin()
        assert niceness_of(pool.workers["cpu1+"]) == before
        assert niceness_of(pool.workers["cpu1"]) == LOWEST
        # Who started them is still among those that give way.
        native = thread.submit(threading.get_native_id).result(PATIENCE_S)
        assert os.getpriority(os.PRIO_PROCESS, native) == LOWEST
    pool.stop()
    assert pool.join(PATIENCE_S)


def test_who_begins_to_be_apart_when_all_give_way_gives_way_afterwards(
    a_yielding_thread: Callable[[Yielding], ThreadPoolExecutor],
) -> None:
    yielding = Yielding()

    def begins_meanwhile() -> int:
        with yielding.apart():
            yielding.begin()
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    with a_yielding_thread(yielding) as thread:
        assert thread.submit(begins_meanwhile).result(PATIENCE_S) == LOWEST


@pytest.mark.parametrize(
    ("expected_s", "fields", "gives_way"),
    [
        (1e-3, {"deadline_s": 0.01}, False),
        (1e-3, {"priority": 1}, False),
        (1e-3, {}, True),  # it may run beside what is urgent
        (5e-3, {"deadline_s": 0.01}, True),  # it may be preempted
    ],
)
def test_a_worker_below_gives_way_from_the_first_run_on_that_may_have_to(
    expected_s: float, fields: dict[str, float], gives_way: bool
) -> None:
    yielding = Yielding()
    pool = WorkerPool((CPU1, EXPRESS), Owner(), {"cpu1": (), "cpu1+": ()}, yielding)
    worker = pool.workers["cpu1"]
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    pool.start("cpu1")
    yielding.begin()
    for seconds, more in ((1e-3, {"deadline_s": 0.01}), (expected_s, fields)):
        worker.give(job(seconds, **more))
        settled(worker)
    assert worker.gives_way is gives_way
    assert niceness_of(worker) == (LOWEST if gives_way else before)
    names = [each.processor.name for each in pool.on_top(["cpu1"])]
    assert names == (["cpu1+"] if gives_way else ["cpu1+", "cpu1"])
    pool.stop()
    assert pool.join(PATIENCE_S)


def test_fresh_threads_take_the_place_of_those_that_gave_way_and_lose_no_job() -> None:
    yielding = Yielding()
    owner = Owner()
    left: SimpleQueue[Worker] = SimpleQueue()
    owner.left = left.put  # type: ignore[method-assign]
    pool = WorkerPool((CPU0, CPU1, EXPRESS), owner, {"cpu0": (), "cpu1": (), "cpu1+": ()}, yielding)
    worker = pool.workers["cpu1"]
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    pool.start("cpu1")
    worker.give(job(expected_s=1.0))
    settled(worker)
    pool.workers["cpu1+"].give(job(expected_s=1e-3))
    assert yielding.has_begun
    assert niceness_of(worker) == LOWEST

    pool.raise_again()
    assert left.get(timeout=PATIENCE_S) is worker
    assert yielding.has_begun  # who gives way may still be on its way out
    worker.give(job(expected_s=1.0))  # none takes it yet
    pool.start_anew(worker)
    settled(worker)
    assert worker.use.executions == 2
    assert niceness_of(worker) == before
    assert not yielding.has_begun

    pool.workers["cpu1+"].give(job(expected_s=1e-3))  # and it may begin once more
    assert yielding.has_begun
    assert niceness_of(worker) == LOWEST
    pool.stop()
    assert pool.join(PATIENCE_S)


def test_none_gives_way_where_that_is_not_to_be_and_all_are_asked_again() -> None:
    yielding = Yielding()
    pool = WorkerPool((CPU1, EXPRESS), Owner(), {"cpu1": (), "cpu1+": ()}, yielding)
    pool.start("cpu1")
    answers = [True, False]
    pool.may_lower = answers.pop
    begun = []
    for _ in range(2):
        pool.workers["cpu1+"].give(job(expected_s=1e-3))
        begun.append(yielding.has_begun)
    assert begun == [False, True]
    pool.stop()
    assert pool.join(PATIENCE_S)


def test_workers_on_idle_cores_are_asked_first_and_express_ones_on_busy_cores_next() -> None:
    cores: dict[str, tuple[int, ...]] = {"cpu0": (), "cpu1": (), "cpu1+": ()}
    pool = WorkerPool((CPU0, CPU1, EXPRESS), Owner(), cores, Yielding())
    asked = {
        name: [each.processor.name for each in pool.on_top([name])]
        for name in ("cpu0", "cpu1", "cpu1+")
    }
    assert asked == {
        "cpu0": ["cpu1", "cpu1+", "cpu0"],
        "cpu1": ["cpu0", "cpu1+", "cpu1"],
        "cpu1+": ["cpu0", "cpu1+", "cpu1"],
    }


def test_of_express_workers_the_most_used_one_is_asked_first() -> None:
    other = dataclasses.replace(
        EXPRESS, name="cpu0+", units=frozenset({"core0+"}), overlays=CPU0.units
    )
    everyone = [CPU0, CPU1, other, EXPRESS]
    pool = WorkerPool(everyone, Owner(), {each.name: () for each in everyone}, Yielding())
    busy = ["cpu0", "cpu1"]
    assert [each.processor.name for each in pool.on_top(busy)][:2] == ["cpu0+", "cpu1+"]
    pool.workers["cpu1+"].use.executions = 1
    assert [each.processor.name for each in pool.on_top(busy)][:2] == ["cpu1+", "cpu0+"]
