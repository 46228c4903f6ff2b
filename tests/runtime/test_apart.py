"""Something is done in a thread of its own while another one waits."""

from __future__ import annotations

import signal
import threading
from contextlib import nullcontext

import pytest

from coinfer.runtime.apart import do_apart

PATIENCE_S = 20.0


def _always() -> bool:
    return True


def _nothing() -> None: ...


def test_it_is_done_when_the_call_returns_and_by_another_thread() -> None:
    names = list[str]()
    do_apart(lambda: names.append(threading.current_thread().name), _always, _nothing, "apart")
    assert names == ["apart"]


def test_what_it_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        do_apart(lambda: 1 // 0, _always, _nothing, "apart")


@pytest.mark.alone  # others run tests where the signal is ignored
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals to threads are POSIX")
def test_who_is_interrupted_has_it_end_and_waits_for_that() -> None:
    main = threading.get_ident()
    stopped, ended = threading.Event(), list[bool]()

    def act() -> None:
        signal.pthread_kill(main, signal.SIGINT)  # that waits
        ended.append(stopped.wait(PATIENCE_S))

    with pytest.raises(KeyboardInterrupt):
        do_apart(act, _always, stopped.set, "apart")
    assert ended == [True]


def test_who_waits_looks_at_it_and_may_have_it_end() -> None:
    stopped, looks, ended = threading.Event(), list[str](), list[bool]()

    def goes_on() -> bool:
        looks.append(threading.current_thread().name)
        return len(looks) < 3

    do_apart(lambda: ended.append(stopped.wait(PATIENCE_S)), goes_on, stopped.set, "apart")
    assert ended == [True]
    assert looks == [threading.current_thread().name] * 3


def test_it_is_looked_at_once_more_at_its_end() -> None:
    done, looks = list[str](), list[int]()

    def goes_on() -> bool:
        looks.append(len(done))
        return True

    do_apart(lambda: done.append("done"), goes_on, _nothing, "apart")
    assert looks[-1] == 1


def test_where_looking_at_it_fails_it_ends_first() -> None:
    stopped, ended = threading.Event(), list[bool]()

    def goes_on() -> bool:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        do_apart(lambda: ended.append(stopped.wait(PATIENCE_S)), goes_on, stopped.set, "apart")
    assert ended == [True]


def test_another_thread_goes_on_where_one_is_stuck() -> None:
    returned, begun = threading.Event(), list[str]()

    def act() -> None:
        begun.append("begun")
        if len(begun) == 1:
            assert returned.wait(PATIENCE_S)
            raise ValueError("nobody hears of it")

    do_apart(act, _always, _nothing, "apart", lambda: len(begun) == 1)
    assert begun == ["begun"] * 2
    returned.set()


@pytest.mark.parametrize("raises", [True, False])
def test_so_it_does_where_it_is_to_end(*, raises: bool) -> None:
    returned, begun = threading.Event(), list[str]()
    is_begun = threading.Event()

    def act() -> None:
        begun.append("begun")
        is_begun.set()
        if len(begun) == 1:
            assert returned.wait(PATIENCE_S)

    def goes_on() -> bool:
        assert is_begun.wait(PATIENCE_S)
        if raises:
            raise ValueError("no")
        return False

    with pytest.raises(ValueError, match="no") if raises else nullcontext():
        do_apart(act, goes_on, _nothing, "apart", lambda: len(begun) == 1)
    assert begun == ["begun"] * 2
    returned.set()
