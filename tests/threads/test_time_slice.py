"""A thread gets shorter time slices, and nothing else of it changes."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from coinfer.threads.time_slice import SHORTEST_S, shorten_time_slice, time_slice_s

_T = TypeVar("_T")


def in_a_thread(act: Callable[[], _T]) -> _T:
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(act).result()


@pytest.fixture
def usual_s() -> float:
    """The usual time slice; skips where Linux knows no others."""
    if sys.platform != "linux":
        pytest.skip("only Linux has time slices")
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    found = in_a_thread(time_slice_s)
    if release < (6, 12) or found is None:
        pytest.skip("needs Linux 6.12")
    return found


def test_a_thread_gets_shorter_slices_and_what_it_starts_does_not(usual_s: float) -> None:
    def shortened() -> tuple[bool, float | None, int, float | None]:
        before = os.getpriority(os.PRIO_PROCESS, 0)
        is_taken = shorten_time_slice()
        changed = os.getpriority(os.PRIO_PROCESS, 0) - before
        return is_taken, time_slice_s(), changed, in_a_thread(time_slice_s)

    assert in_a_thread(shortened) == (True, SHORTEST_S, 0, usual_s)
    assert in_a_thread(time_slice_s) == usual_s


def test_a_thread_that_yields_to_all_others_is_left_alone(usual_s: float) -> None:
    def shortened() -> tuple[bool, int]:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        return shorten_time_slice(), os.sched_getscheduler(0)

    assert usual_s > SHORTEST_S
    assert in_a_thread(shortened) == (False, os.SCHED_IDLE)


def test_where_the_system_has_none_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "abacus")
    assert not shorten_time_slice()
    assert time_slice_s() is None
