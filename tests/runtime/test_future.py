"""The future of a request is one of the standard library in all but its condition."""

from __future__ import annotations

import threading
from concurrent.futures import Future, as_completed, wait

import pytest

from coinfer.core.request import Request
from coinfer.errors import ExecutionError
from coinfer.runtime.future import InferenceFuture

WAIT_S = 20.0


def new_future() -> InferenceFuture:
    return InferenceFuture(Request(0, "m", 0.0), {}, lambda _future: None)


def test_it_has_all_that_its_base_class_sets() -> None:
    mine, base = new_future(), vars(Future())
    others = base.keys() - {"_condition"}
    assert {name: getattr(mine, name) for name in others} == {name: base[name] for name in others}
    # What can be changed is not shared with other futures.
    assert {"_condition", "_waiters", "_done_callbacks"} <= vars(mine).keys()


def test_whoever_waits_is_woken_by_the_answer_and_by_cancelling() -> None:
    answered, cancelled, failed = futures = [new_future() for _ in range(3)]
    begun = threading.Barrier(4)
    seen: list[object] = []

    def look(future: InferenceFuture) -> None:
        begun.wait()
        try:
            seen.append(future.exception(WAIT_S))
        except BaseException as error:  # noqa: BLE001 - that of a cancelled one
            seen.append(error)

    threads = [threading.Thread(target=look, args=(future,)) for future in futures]
    for thread in threads:
        thread.start()
    begun.wait()
    answered.keep({})
    answered.answer(None)
    cancelled.cancel()
    failed.answer(ExecutionError("oops"))
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(type(each).__name__ for each in seen) == [
        "CancelledError",
        "ExecutionError",
        "NoneType",
    ]
    assert wait(futures, WAIT_S).not_done == set()
    assert {*as_completed(futures, WAIT_S)} == {*futures}


def test_waiting_ends_in_time_and_leaves_nothing() -> None:
    future = new_future()
    for timeout_s in (0, 0.01, -1):
        with pytest.raises(TimeoutError):
            future.result(timeout_s)
    future.keep({})
    future.answer(None)
    assert future.result() == {}
