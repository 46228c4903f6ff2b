"""Requests are held back while the engine has enough, so that tenants get what is theirs."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from coinfer.core.commands import Command, Execution, Reply, Run
from coinfer.core.events import Arrived, Event, Finished
from coinfer.core.request import Outcome, Request
from coinfer.errors import ClosedError, DroppedError, InputError, RejectedError
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span
from coinfer.server.tenant_queue import TenantQueue

COSTS = {"small": 0.010, "large": 0.100}


class FakeEngine:
    """First come, first served, on processors that take the time of `COSTS`; its clock is its own.

    `only` names the processors of a model; the others' may run on all.
    """

    def __init__(self, n: int = 1, only: dict[str, set[str]] | None = None) -> None:
        self.processors = [
            Processor(name=f"p{i}", backend="null", units=frozenset({f"core{i}"})) for i in range(n)
        ]
        self.queue: TenantQueue
        self.now = 0.0
        self.idle_s = 0.0
        self.began: list[str] = []
        self.only = only or {}
        self._numbers = itertools.count()
        self._waiting: list[tuple[Request, Future[Any]]] = []
        self._ends: list[tuple[float, int, Execution, Future[Any]]] = []

    def begin(self, model: str, deadline_s: float = 1e9) -> Callable[[float], Future[Any]]:
        def begin(due_s: float) -> Future[Any]:
            future: Future[Any] = Future()
            request = Request(next(self._numbers), model, due_s, due_s + deadline_s)
            if request.deadline_s <= self.now:
                self.tell(Arrived(request), [Reply(request, Outcome.DROPPED)])
                future.set_exception(DroppedError("too late"))
                return future
            self._waiting.append((request, future))
            self.tell(Arrived(request), self._started())
            return future

        return begin

    def tell(self, event: Event, commands: list[Command]) -> None:
        self.queue.observe(event, commands)

    def _started(self) -> list[Command]:
        commands: list[Command] = []
        for request, future in list(self._waiting):
            busy = {execution.processor for _, _, execution, _ in self._ends}
            names = self.only.get(request.model, {each.name for each in self.processors})
            free = sorted(names - busy)
            if future.cancelled() or not free:
                continue
            self._waiting.remove((request, future))
            number, takes_s = next(self._numbers), COSTS[request.model]
            execution = Execution(
                number, request.model, Span(0, 0), free[0], (request,), self.now, takes_s
            )
            self.began.append(request.model)
            heapq.heappush(self._ends, (self.now + takes_s, number, execution, future))
            commands.append(Run(execution))
        return commands

    def run_until(self, until_s: float) -> None:
        while self._ends and self._ends[0][0] <= until_s:
            n_idle = len(self.processors) - len(self._ends)
            end_s, number, execution, future = heapq.heappop(self._ends)
            self.idle_s += n_idle * (end_s - self.now)
            self.now = end_s
            reply = Reply(execution.requests[0], Outcome.COMPLETED)
            self.tell(Finished(number, end_s - execution.started_s), [reply, *self._started()])
            future.set_result({})
            while self.queue._is_woken:  # what the queue's own thread does
                self.queue._is_woken = False
                self.queue.release()
        self.now = until_s


def queue_of(
    engine: FakeEngine, weights: dict[str, float], most_waiting: int | None = None
) -> TenantQueue:
    engine.queue = TenantQueue(weights, engine.processors, most_waiting, now=lambda: engine.now)
    return engine.queue


def seen(engine: FakeEngine) -> None:
    """Let it be known where models run and how long; one second passes."""
    for model in COSTS:
        engine.queue.submit("a", model, engine.begin(model))
    engine.run_until(1.0)
    engine.began.clear()


def flood(engine: FakeEngine, tenant: str, model: str, count: int = 200) -> list[Future[Any]]:
    submit = engine.queue.submit
    return [submit(tenant, model, engine.begin(model)) for _ in range(count)]


def test_in_overload_seconds_and_not_requests_are_shared_by_weight() -> None:
    engine = FakeEngine()
    queue = queue_of(engine, {"a": 3.0, "b": 1.0})
    flood(engine, "a", "small", 2000)
    flood(engine, "b", "large", 200)
    engine.run_until(10.0)
    seconds = {each.tenant: each.seconds for each in queue.counts()}
    assert sum(seconds.values()) == pytest.approx(10.0, abs=0.2)
    assert seconds["a"] / seconds["b"] == pytest.approx(3.0, rel=0.1)
    assert {each.tenant: each.requests for each in queue.counts()} == {"a": 2000, "b": 200}


def test_the_share_of_a_tenant_that_asks_nothing_goes_to_the_others() -> None:
    engine = FakeEngine(2)
    queue = queue_of(engine, {"a": 1.0, "b": 99.0})
    answers = flood(engine, "a", "small", 1000)
    engine.run_until(4.0)
    assert sum(each.done() for each in answers) == 800
    assert engine.idle_s == 0.0
    assert queue.counts()[0].seconds == pytest.approx(8.0)


def test_no_processor_is_idle_that_a_held_request_could_use() -> None:
    engine = FakeEngine(2, only={"large": {"p0"}, "small": {"p1"}})
    queue_of(engine, {"a": 1.0, "b": 1.0})
    seen(engine)
    idle_s = engine.idle_s
    flood(engine, "a", "large", 50)
    answers = flood(engine, "b", "small", 100)
    engine.run_until(2.0)
    assert sum(each.done() for each in answers) >= 99
    assert engine.idle_s == idle_s


def test_weights_count_too_while_the_engine_is_full_of_what_cannot_begin() -> None:
    engine = FakeEngine(2, only={"large": {"p0"}, "small": {"p1"}})
    queue_of(engine, {"a": 3.0, "b": 1.0, "c": 1.0})
    seen(engine)
    engine.only["large"] = set()  # its processor is set aside
    flood(engine, "c", "large", 50)
    others = flood(engine, "b", "small", 500), flood(engine, "a", "small", 500)
    engine.run_until(5.0)
    n_b, n_a = (sum(each.done() for each in answers) for answers in others)
    assert n_a + n_b in (399, 400)
    assert n_a / n_b == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize("idle", ["express", "unwanted"])
def test_weights_count_too_where_a_processor_is_idle_that_is_not_chosen(idle: str) -> None:
    engine = FakeEngine(only={"large": {"p1"}, "small": {"p0"}})
    overlays = frozenset({"core0"} if idle == "express" else ())
    engine.processors.append(
        Processor(name="p1", backend="null", units=frozenset({"core1"}), overlays=overlays)
    )
    queue = queue_of(engine, {"a": 9.0, "b": 1.0})
    seen(engine)
    engine.only["large"] = {"p0"}
    flood(engine, "a", "small", 1500)
    flood(engine, "b", "large", 100)
    engine.run_until(11.0)
    seconds = {each.tenant: each.seconds for each in queue.counts()}
    assert seconds["b"] == pytest.approx(1.0, abs=0.21)


def test_little_waits_in_the_engine_itself() -> None:
    engine = FakeEngine()
    queue = queue_of(engine, {"a": 1.0})
    flood(engine, "a", "small", 100)
    engine.run_until(0.2)
    flood(engine, "a", "small", 100)
    assert len(engine._waiting) <= 3
    assert queue.n_held >= 170


def test_a_tenant_that_comes_while_another_floods_waits_for_a_few_runs_only() -> None:
    engine = FakeEngine()
    queue_of(engine, {"a": 1.0, "b": 1.0})
    flood(engine, "a", "small", 500)
    engine.run_until(1.0)
    [answer] = flood(engine, "b", "small", 1)
    engine.run_until(1.05)
    assert answer.done()


def test_the_moment_from_which_a_deadline_counts_is_that_of_the_submission() -> None:
    engine = FakeEngine()
    queue = queue_of(engine, {"a": 1.0})
    seen(engine)
    flood(engine, "a", "large", 10)
    late = queue.submit(
        "a", "small", engine.begin("small", 0.22), deadline_s=0.22, priority=-1, is_dropped=True
    )
    engine.run_until(1.25)
    assert not late.done()
    engine.run_until(1.35)  # at the next release it is due to be dropped, out of its turn
    assert isinstance(late.exception(0), DroppedError)
    assert engine.began.count("small") == 0


def test_a_thread_drops_what_is_late_though_nothing_ends() -> None:
    engine = FakeEngine()
    queue = queue_of(engine, {"a": 1.0})
    seen(engine)
    flood(engine, "a", "large", 10)
    engine.now = 1.01
    late = queue.submit(
        "a", "small", engine.begin("small", 0.02), deadline_s=0.02, priority=-1, is_dropped=True
    )
    assert not late.done()
    engine.now = 1.05
    queue.start()
    try:
        assert isinstance(late.exception(20), DroppedError)
    finally:
        queue.close("the end")


def test_nothing_is_kept_of_what_is_answered_or_cancelled() -> None:
    engine = FakeEngine()
    queue = queue_of(engine, {"a": 1.0, "b": 100.0})
    seen(engine)

    def submit(tenant: str, deadline_s: float) -> Future[Any]:
        begin = engine.begin("small", deadline_s)
        return queue.submit(tenant, "small", begin, deadline_s=deadline_s, is_dropped=True)

    for _ in range(50):
        submit("a", 600.0)
    for number in range(2000):
        answer = submit("b", 3600.0)
        if number % 2 and getattr(answer, "_inner", answer) is None:  # it is held
            answer.cancel()
        elif number % 8 == 0:
            engine.run_until(engine.now + 0.045)
    kept = [request for _, request in queue._late._entries]
    assert len(kept) <= 2 * queue.n_held + 66
    assert all(request.future is None for request in kept if not request.is_held)


def test_what_nobody_wants_any_more_is_not_released() -> None:
    engine, left = FakeEngine(), Counter[str]()
    queue = queue_of(engine, {"a": 1.0})
    seen(engine)
    flood(engine, "a", "large", 10)
    unwanted = queue.submit(
        "a", "small", engine.begin("small"), left=lambda: left.update(["unwanted"])
    )
    assert not left
    assert unwanted.cancel()
    assert left == {"unwanted": 1}
    engine.run_until(5.0)
    assert engine.began == ["large"] * 10
    with pytest.raises(CancelledError):
        unwanted.result(0)
    assert queue.n_held == 0


def test_what_is_cancelled_after_its_release_is_cancelled_in_the_engine() -> None:
    engine = FakeEngine()
    queue = queue_of(engine, {"a": 1.0})
    answers = flood(engine, "a", "large", 6)
    engine.run_until(0.25)
    released = [each for each in answers if each.done() or getattr(each, "_inner", 0) is not None]
    waiting = [each for each in released if not each.done()][-1]
    assert waiting.cancel()
    assert waiting.cancelled()
    engine.run_until(5.0)
    assert engine.began == ["large"] * 5
    assert queue._work.n_waiting == queue._work.n_unanswered == 0


def test_what_is_hastened_goes_out_of_turn_as_far_as_so_much_may_wait() -> None:
    engine = FakeEngine()
    queue = queue_of(engine, {"a": 1.0, "b": 100.0})
    seen(engine)
    flood(engine, "b", "large", 100)
    wanted = flood(engine, "a", "small", 9)
    queue._work._most_waiting = 8
    queue.hasten("small")
    assert queue._work.n_waiting == 8
    held = queue.counts()[0].waiting
    assert 0 < held < 9
    engine.run_until(engine.now + 0.35)
    queue.hasten("small")
    assert queue.counts()[0].waiting == 0
    engine.run_until(engine.now + 1.0)
    assert all(each.done() for each in wanted)
    assert queue.counts()[0].seconds == pytest.approx(0.110 + 9 * 0.010)


def test_of_a_model_that_is_unloaded_nothing_is_kept() -> None:
    engine = FakeEngine()
    queue = queue_of(engine, {"a": 1.0})
    seen(engine)
    work = queue._work
    for model in COSTS:
        queue.forget(model)
    assert not work._costs
    assert not work._ran_on
    assert not work._waiting


def test_an_error_at_the_release_is_the_answer() -> None:
    engine, left = FakeEngine(), Counter[str]()
    queue = queue_of(engine, {"a": 1.0})

    def refuse(_due_s: float) -> Future[Any]:
        raise InputError("wrong")

    with pytest.raises(InputError):
        queue.submit("a", "small", refuse, left=lambda: left.update(["first"]))
    flood(engine, "a", "large", 10)
    answer = queue.submit("a", "small", refuse, left=lambda: left.update(["second"]))
    engine.run_until(5.0)
    assert isinstance(answer.exception(0), InputError)
    assert left == {"first": 1, "second": 1}
    assert queue._work.n_unanswered == 0


def test_who_has_its_share_of_what_may_wait_is_refused_and_others_are_not() -> None:
    engine, left = FakeEngine(), Counter[str]()
    queue = queue_of(engine, {"a": 1.0, "b": 1.0}, most_waiting=20)
    n_released = len(flood(engine, "a", "large", 21)) - queue.n_held

    def one_more(tenant: str) -> None:
        queue.submit(tenant, "large", engine.begin("large"), left=lambda: left.update([tenant]))

    with pytest.raises(RejectedError, match="tenant 'a' has its share"):
        one_more("a")
    flood(engine, "b", "large", 10)
    with pytest.raises(RejectedError, match="tenant 'b' has its share"):
        one_more("b")
    assert left == {"a": 1, "b": 1}
    counts = {each.tenant: (each.refused, each.waiting) for each in queue.counts()}
    assert counts == {"a": (1, 21 - n_released), "b": (1, 10)}


def test_at_the_end_what_is_held_is_answered() -> None:
    engine = FakeEngine()
    queue = queue_of(engine, {"a": 1.0})
    queue.start()
    answers = flood(engine, "a", "large", 10)
    queue.close("the server is stopping")
    held = [each for each in answers if each.done()]
    assert held
    for each in held:
        assert isinstance(each.exception(0), ClosedError)
    with pytest.raises(ClosedError):
        flood(engine, "a", "large", 1)
    queue.close("again")


def test_what_would_start_at_once_is_not_expected_to_wait() -> None:
    engine = FakeEngine(2, only={"large": {"p0"}, "small": {"p1"}})
    queue = queue_of(engine, {"a": 1.0, "b": 1.0})
    seen(engine)
    flood(engine, "a", "large", 100)
    assert queue.wait_s("a", "large", 0) > 9.0
    assert queue.wait_s("a", "small", 0) == 0.0
    flood(engine, "a", "small", 1)
    assert engine.began == ["large", "small"]
    assert queue.wait_s("a", "small", 0) == 0.0  # what is held waits for the other processor
    flood(engine, "b", "small", 100)
    assert queue.wait_s("b", "small", 0) == pytest.approx(100 * 0.010 / 2)


def test_what_ran_nowhere_yet_is_not_expected_to_wait_where_it_may_start() -> None:
    engine = FakeEngine(2, only={"large": {"p0"}})
    queue = queue_of(engine, {"a": 1.0})
    flood(engine, "a", "large", 1)
    engine.run_until(1.0)
    flood(engine, "a", "large", 100)
    assert queue.wait_s("a", "small", 0) == 0.0
    flood(engine, "a", "small", 1)
    assert engine.began == ["large", "large", "small"]


def test_what_is_expected_to_wait_is_what_waits() -> None:
    engine = FakeEngine()
    queue = queue_of(engine, {"a": 1.0, "b": 1.0})
    flood(engine, "a", "small", 100)
    engine.run_until(0.5)
    held = queue.n_held
    assert queue.wait_s("a", "small", 0) == pytest.approx(held * 0.010, rel=0.01)
    assert queue.wait_s("a", "small", 1) == 0.0
    assert queue.wait_s("b", "small", 0) <= 0.02
