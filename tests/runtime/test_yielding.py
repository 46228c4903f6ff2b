"""Which threads give way, whoever starts them: a worker that owns the core starts others."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from coinfer.machine.processor import Processor
from coinfer.runtime.worker import Worker
from coinfer.runtime.worker_pool import WorkerPool
from coinfer.runtime.yielding import Yielding
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
    def returned(self, worker: Worker) -> None: ...
    def died(self, worker: Worker, reason: str) -> None: ...


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
