"""Pinning affects the calling thread only, never raises, and complains once."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from coinfer.hardware import available_cores
from coinfer.threads import pinning
from coinfer.threads.pinning import can_pin, pin_current_thread, placed_on

T = TypeVar("T")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux pins")


def in_thread(function: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


@pytest.fixture(autouse=True)
def fresh() -> None:
    pinning._refused.cache_clear()


@linux
def test_a_pinned_thread_may_run_on_that_core_only() -> None:
    core = available_cores()[-1]

    def pinned() -> set[int]:
        assert pin_current_thread((core,))
        return set(os.sched_getaffinity(0))

    assert in_thread(pinned) == {core}


@linux
def test_other_threads_are_left_alone() -> None:
    before = os.sched_getaffinity(0)
    in_thread(lambda: pin_current_thread(available_cores()[:1]))
    assert os.sched_getaffinity(0) == before


def test_no_cores_means_leave_the_thread_alone() -> None:
    assert not pin_current_thread(())


@linux
def test_a_forbidden_core_is_refused_once_and_nothing_is_raised(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_thread: int, _cores: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(pinning.os, "sched_setaffinity", forbidden)
    with caplog.at_level(logging.WARNING, logger="coinfer"):
        assert not pin_current_thread((0,))
        assert not pin_current_thread((1,))
    assert [record.message for record in caplog.records] == [
        "threads are not pinned to cores: Operation not permitted; everything else works"
    ]


def test_other_systems_do_not_pin_and_say_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinning.sys, "platform", "darwin")
    with caplog.at_level(logging.WARNING, logger="coinfer"):
        assert not pin_current_thread((0,))
    assert "darwin" in caplog.text


@linux
def test_the_self_test_is_true_for_our_cores_and_false_for_a_core_that_is_not_there() -> None:
    assert can_pin(available_cores())
    assert not can_pin((1023,))
    assert not can_pin(())


@linux
def test_the_self_test_leaves_the_calling_thread_alone() -> None:
    before = os.sched_getaffinity(0)
    can_pin(available_cores())
    assert os.sched_getaffinity(0) == before


@linux
def test_a_thread_is_placed_for_a_while_and_then_runs_where_it_ran_before() -> None:
    core = available_cores()[-1]

    def placed() -> tuple[set[int], set[int], set[int]]:
        before = set(os.sched_getaffinity(0))
        with placed_on((core,)):
            inside = set(os.sched_getaffinity(0))
        return before, inside, set(os.sched_getaffinity(0))

    before, inside, after = in_thread(placed)
    assert inside == {core}
    assert after == before


@linux
def test_a_thread_is_back_where_it_was_if_what_it_does_fails() -> None:
    before = set(os.sched_getaffinity(0))
    with pytest.raises(RuntimeError, match="told"), placed_on(available_cores()[:1]):
        raise RuntimeError("told")
    assert set(os.sched_getaffinity(0)) == before
