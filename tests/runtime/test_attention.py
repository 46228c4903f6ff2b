"""A thread that asks performs brief runs itself; all others are the workers'."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from coinfer.backends.null import Faults
from coinfer.core.dispatcher import Limits
from coinfer.errors import ConfigurationError, ExecutionError
from coinfer.runtime.future import InferenceFuture
from runtime.noting import BRIEF_S, FEED, LONG_S, Noting, noting_engine


def in_thread(act: Callable[[], object], name: str = "asks") -> threading.Thread:
    """Do something in a thread of its own, to its end."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join(20.0)
    assert not thread.is_alive()
    if errors:
        raise errors[0]
    return thread


def test_a_thread_that_waits_performs_its_brief_run_itself() -> None:
    backend = Noting()
    with noting_engine(backend) as made:
        in_thread(lambda: made.infer("m", FEED))
        assert backend.threads == ["asks"]
        stats = made.stats()
    assert stats.processors["p0"].executions == 1
    assert stats.models["m"].completed == 1


@pytest.mark.parametrize(
    ("seconds", "given"),
    [(LONG_S, {}), (BRIEF_S, {"wake_s": 0.0}), (BRIEF_S, {"threads": 2})],
    ids=["takes long", "no matter", "several threads"],
)
def test_other_runs_are_the_workers(seconds: float, given: dict[str, Any]) -> None:
    backend = Noting()
    with noting_engine(backend, seconds, **given) as made:
        in_thread(lambda: made.infer("m", FEED))
    assert backend.threads == ["coinfer-p0"]


def test_the_main_thread_performs_nothing() -> None:
    backend = Noting()
    with noting_engine(backend) as made:
        made.infer("m", FEED)
    assert backend.threads == ["coinfer-p0"]


def test_what_was_submitted_by_a_thread_is_the_workers() -> None:
    backend = Noting()
    with noting_engine(backend) as made:
        in_thread(lambda: made.submit("m", FEED).result(20.0))
    assert backend.threads == ["coinfer-p0"]


def test_a_run_that_fails_is_told_and_the_thread_lives_on() -> None:
    backend = Noting(faults=Faults())
    backend.faults.fail(model="m", times=10)

    def ask() -> None:
        with pytest.raises(ExecutionError):
            made.infer("m", FEED)
        backend.faults.release()
        assert made.infer("m", FEED)

    with noting_engine(backend, limits=Limits(set_aside_after=100)) as made:
        in_thread(ask)
    assert backend.threads == ["asks"] * len(backend.threads)


def test_a_session_does_not_end_the_thread_that_asks() -> None:
    def leave() -> None:
        if len(backend.threads) == 1:
            raise SystemExit

    backend = Noting(leave)
    with noting_engine(backend, names=("p0", "p1")) as made:
        in_thread(lambda: made.infer("m", FEED))  # it is tried again
    assert len(backend.threads) == 2


def test_sessions_are_not_closed_under_a_lent_run() -> None:
    entered, gate = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        assert gate.wait(20.0)

    backend = Noting(wait)
    made = noting_engine(backend)
    asking = threading.Thread(target=lambda: made.infer("m", FEED), name="asks")
    asking.start()
    assert entered.wait(20.0)
    stopping = threading.Thread(target=made.stop)
    stopping.start()
    stopping.join(0.2)
    assert stopping.is_alive()
    assert backend.open == ["p0"]
    gate.set()
    stopping.join(20.0)
    asking.join(20.0)
    assert not stopping.is_alive()
    assert backend.open == []
    assert backend.threads == ["asks"]


def test_a_lent_run_that_hangs_is_given_up_and_its_processor_returns_after_it() -> None:
    gate = threading.Event()

    def hang() -> None:
        if len(backend.threads) == 1:
            assert gate.wait(20.0)

    backend = Noting(hang)
    limits = Limits(hang_factor=2.0, hang_min_s=0.05)
    with noting_engine(backend, names=("p0", "p1"), limits=limits) as made:
        asking = threading.Thread(target=lambda: made.infer("m", FEED), name="asks")
        asking.start()
        while len(backend.threads) < 2:  # the other processor takes the request
            asking.join(0.01)
        assert [outage.processor for outage in made.outages] == ["p0"]
        for _ in range(3):  # p0 is in use: all go to p1
            made.infer("m", FEED)
        assert set(backend.threads[1:]) == {"coinfer-p1"}
        gate.set()
        asking.join(20.0)
        assert not asking.is_alive()


def test_a_lent_run_that_hangs_takes_no_other_processor_with_it() -> None:
    soon: list[Callable[[], None]] = []
    gate = threading.Event()

    def hang() -> None:
        if len(backend.threads) == 1:
            assert gate.wait(20.0)

    backend = Noting(hang)
    limits = Limits(hang_factor=2.0, hang_min_s=0.05)
    options = {"names": ("p0", "p1"), "models": ("a", "b"), "limits": limits}
    with noting_engine(backend, BRIEF_S / 2, **options) as made:

        def serve() -> None:
            made.attend(threading.get_ident(), soon.append)
            futures.extend(made.submit(name, FEED) for name in "ab")
            submitted.set()
            soon.pop()()
            made.attend(threading.get_ident(), None)

        futures: list[InferenceFuture] = []
        submitted = threading.Event()
        serving = threading.Thread(target=serve)
        serving.start()
        try:
            assert submitted.wait(20.0)
            for future in futures:
                assert future.result(20.0)
            assert len(made.outages) == 1
        finally:
            gate.set()
            serving.join(20.0)


def test_a_thread_that_attends_handles_together_what_it_asks() -> None:
    soon: list[Callable[[], None]] = []
    backend = Noting()
    with noting_engine(backend, BRIEF_S / 2, models=("a", "b", "c")) as made:

        def serve() -> None:
            here = threading.get_ident()
            made.attend(here, soon.append)
            futures = [made.submit(name, FEED) for name in "abc"]
            assert len(soon) == 1
            assert backend.threads == []
            soon.pop()()
            assert [future.done() for future in futures] == [True] * 3
            made.attend(here, None)
            assert made.submit("a", FEED).result(20.0)

        in_thread(serve)
    assert backend.threads == ["asks"] * 3 + ["coinfer-p0"]


def test_what_waits_is_handled_when_a_thread_attends_no_more() -> None:
    with noting_engine(Noting()) as made:

        def serve() -> None:
            made.attend(threading.get_ident(), lambda _: None)
            future = made.submit("m", FEED)
            assert not future.done()
            made.attend(threading.get_ident(), None)
            assert future.result(20.0)

        in_thread(serve)


def test_a_loop_that_is_closed_keeps_nobody_waiting() -> None:
    def refuse(_: Callable[[], None]) -> None:
        raise RuntimeError("Event loop is closed")

    with noting_engine(Noting()) as made:

        def serve() -> None:
            made.attend(threading.get_ident(), refuse)
            assert made.submit("m", FEED).result(20.0)
            made.attend(threading.get_ident(), None)

        in_thread(serve)


def test_a_thread_that_attends_may_ask_how_things_are() -> None:
    with noting_engine(Noting()) as made:

        def serve() -> None:
            made.attend(threading.get_ident(), lambda _: None)
            made.submit("m", FEED)
            assert made.stats().models["m"].submitted == 1
            made.attend(threading.get_ident(), None)

        in_thread(serve)


def test_what_runs_at_once_is_shared_with_a_worker() -> None:
    soon: list[Callable[[], None]] = []
    gate = threading.Event()

    def meet() -> None:
        """Let both run at once, or fail."""
        if len(backend.threads) == 2:
            gate.set()
        assert gate.wait(20.0)

    backend = Noting(meet)
    with noting_engine(backend, names=("p0", "p1"), models=("a", "b")) as made:

        def serve() -> None:
            made.attend(threading.get_ident(), soon.append)
            futures = [made.submit(name, FEED) for name in "ab"]
            soon.pop()()
            made.attend(threading.get_ident(), None)
            for future in futures:
                assert future.result(20.0)

        in_thread(serve)
    assert sorted(backend.threads) == ["asks", "coinfer-p1"]


def test_many_threads_that_infer_each_get_their_own_answer() -> None:
    with noting_engine(Noting(), models=("m",), names=("p0", "p1")) as made:
        failed: list[BaseException] = []

        def ask() -> None:
            try:
                for _ in range(200):
                    answer = made.infer("m", FEED, timeout_s=20.0)
                    assert answer["y"].shape == (1, 3)
            except BaseException as error:  # noqa: BLE001 - shown below
                failed.append(error)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60.0)
        assert failed == []
        assert made.stats().models["m"].completed == 1600


def test_a_thread_that_attends_may_wait_with_infer() -> None:
    soon: list[Callable[[], None]] = []
    with noting_engine(Noting(), models=("a", "b")) as made:

        def serve() -> None:
            made.attend(threading.get_ident(), soon.append)
            before = made.submit("a", FEED)
            assert made.infer("b", FEED, timeout_s=20.0)
            assert before.result(20.0)
            soon.pop()()  # nothing is left to do
            made.attend(threading.get_ident(), None)

        in_thread(serve)


def test_who_waits_for_so_long_only_is_not_kept_by_a_run_that_hangs() -> None:
    entered, gate = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        assert gate.wait(20.0)

    def ask() -> None:
        with pytest.raises(TimeoutError):
            made.infer("m", FEED, timeout_s=0.01)
        assert entered.wait(20.0)

    with noting_engine(Noting(hang)) as made:
        asking = threading.Thread(target=lambda: in_thread(ask))
        asking.start()
        asking.join(10.0)
        is_kept = asking.is_alive()
        gate.set()
        asking.join(20.0)
    assert not is_kept


class Owners:
    """Notes which threads own the core."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def observe(self, *_: object) -> None:
        self.threads.append(threading.current_thread())


def test_the_main_thread_never_owns_the_core_as_another_attends_no_more() -> None:
    owners = Owners()
    submitted, ended = threading.Event(), threading.Event()
    with noting_engine(Noting()) as made:
        made.attach(owners)

        def serve() -> None:
            made.attend(threading.get_ident(), lambda _: None)
            future = made.submit("m", FEED)
            submitted.set()
            assert ended.wait(20.0)
            assert future.result(20.0)

        serving = threading.Thread(target=serve)
        serving.start()
        assert submitted.wait(20.0)
        assert serving.ident is not None
        made.attend(serving.ident, None)
        ended.set()
        serving.join(20.0)
        assert not serving.is_alive()
    assert owners.threads
    assert threading.main_thread() not in owners.threads


def test_the_main_thread_cannot_attend() -> None:
    here = threading.get_ident()
    with noting_engine(Noting()) as made:
        with pytest.raises(ConfigurationError, match="main thread"):
            made.attend(here, lambda _: None)
        made.attend(here, None)
        owners = Owners()
        made.attach(owners)
        assert made.infer("m", FEED)
    assert threading.main_thread() not in owners.threads


def test_a_session_runs_in_no_context_of_the_thread_that_asks() -> None:
    seen: list[str] = []
    with noting_engine(Noting(lambda: seen.append(np.geterr()["divide"]))) as made:

        def ask() -> None:
            with np.errstate(divide="raise"):
                made.infer("m", FEED)

        in_thread(ask)
    assert seen == ["warn"]


def test_what_is_lent_beside_a_run_whose_end_cannot_be_told_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    soon: list[Callable[[], None]] = []
    backend = Noting()
    limits = Limits(hang_factor=2.0, hang_min_s=0.05)
    options = {"names": ("p0", "p1"), "models": ("a", "b"), "limits": limits}
    with noting_engine(backend, BRIEF_S / 2, **options) as made:
        attention = made._event_loop.attention

        def fail(*_: object, **__: object) -> None:
            raise OSError

        def serve() -> None:
            made.attend(threading.get_ident(), soon.append)
            futures = [made.submit(name, FEED) for name in "ab"]
            with monkeypatch.context() as patch:
                patch.setattr(attention, "_done", fail)
                with pytest.raises(OSError):  # noqa: PT011 - it is raised above
                    soon.pop()()
            made.attend(threading.get_ident(), None)
            for future in futures:
                assert future.result(20.0)

        in_thread(serve)
    assert backend.threads[0] == "asks"
    assert set(backend.threads[1:]) <= {"coinfer-p0", "coinfer-p1"}


def test_another_thread_may_end_it_while_one_asks() -> None:
    with noting_engine(Noting()) as made:

        def ask() -> None:
            here = threading.get_ident()

            def end() -> None:
                made.attend(here, None)

            made.note_requests(lambda _: end())
            assert made.infer("m", FEED)

        in_thread(ask)
