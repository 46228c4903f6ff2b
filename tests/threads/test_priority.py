"""Lowering affects the calling thread only, never raises, and complains once."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from coinfer.hardware import available_cores
from coinfer.threads import priority
from coinfer.threads.priority import (
    LOWEST,
    above_idle_class,
    give_up_lag,
    is_lowered,
    lower_current_thread,
    lower_marked,
    mark_current_thread,
    why_not_lowered,
)

T = TypeVar("T")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")


def in_thread(function: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.fixture(autouse=True)
def fresh() -> None:
    priority._refused.cache_clear()


@linux
def test_a_lowered_thread_yields_and_no_other_does() -> None:
    before = niceness()
    assert in_thread(lambda: (lower_current_thread(), niceness())) == (True, LOWEST)
    assert niceness() == before


@linux
def test_a_thread_knows_whether_it_was_lowered() -> None:
    assert not in_thread(is_lowered)
    assert in_thread(lambda: lower_current_thread() and is_lowered())


@linux
def test_so_is_one_that_a_user_made_idle_with_its_niceness_kept() -> None:
    def idle() -> tuple[int, bool]:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        return niceness(), is_lowered()

    assert in_thread(idle) == (niceness(), True)


@linux
def test_a_lowered_thread_is_of_the_idle_class_unless_that_is_forbidden_or_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kind() -> tuple[bool, int]:
        return lower_current_thread(), os.sched_getscheduler(threading.get_native_id())

    def refuse(*_: object) -> None:
        raise PermissionError("no")

    assert in_thread(kind) == (True, os.SCHED_IDLE)
    with above_idle_class():
        assert in_thread(kind) == (True, os.SCHED_OTHER)
    assert in_thread(kind) == (True, os.SCHED_IDLE)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert in_thread(kind) == (True, os.SCHED_OTHER)


@linux
def test_marked_threads_and_what_they_start_are_lowered_together_and_no_others() -> None:
    done, ready = threading.Event(), threading.Barrier(4)
    found: dict[str, int] = {}

    def wait(name: str) -> None:
        ready.wait(5)
        done.wait(5)
        found[name] = niceness()

    def begin() -> None:
        mark_current_thread("coinfer~test")
        child = threading.Thread(target=wait, args=("child",))
        child.start()
        wait("marked")
        child.join()

    threads = [threading.Thread(target=begin), threading.Thread(target=wait, args=("other",))]
    for thread in threads:
        thread.start()
    ready.wait(5)
    assert lower_marked("coinfer~test")
    done.set()
    for thread in threads:
        thread.join()
    assert found == {"marked": LOWEST, "child": LOWEST, "other": niceness()}


@linux
def test_it_is_tried_whether_lowered_threads_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    core = available_cores()[-1]
    priority._tried.cache_clear()
    assert why_not_lowered(core) == ""
    priority._tried.cache_clear()
    for call in ("setpriority", "sched_setscheduler"):
        monkeypatch.setattr(priority.os, call, lambda *_: None)  # as if it were ignored
    assert "still gets" in why_not_lowered(core)
    priority._tried.cache_clear()
    monkeypatch.setattr(priority.sys, "platform", "darwin")
    assert why_not_lowered(core) == "darwin has no priorities of single threads"


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_refusal_is_said_once_and_nothing_is_raised(
    platform: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_kind: int, _thread: int, _niceness: int) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(priority.os, "setpriority", forbidden)
    monkeypatch.setattr(priority.sys, "platform", platform)
    with caplog.at_level(logging.WARNING, logger="coinfer"):
        assert not in_thread(lower_current_thread)
        assert not in_thread(lower_current_thread)
    assert len(caplog.records) == 1
    assert "threads keep their priority" in caplog.text


def test_giving_up_a_claim_is_fine_where_threads_cannot_yield(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(priority, "_yield", None)
    give_up_lag()
