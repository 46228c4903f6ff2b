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

from coinfer.threads import priority
from coinfer.threads.priority import LOWEST, lower_current_thread

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
