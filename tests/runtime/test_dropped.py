"""An engine that nobody stops ends its threads once it is collected, and warns of it."""

from __future__ import annotations

import gc
import threading
import time

import pytest

from coinfer.api import Engine
from coinfer.backends.null import Faults
from runtime.engines import FEED, null_engine

WAIT_S = 20.0


def threads_of_engines() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("coinfer")]


def drop(engines: list[Engine]) -> None:
    engines.clear()
    gc.collect()


def wait_until_they_ended() -> bool:
    until_s = time.monotonic() + WAIT_S
    while threads_of_engines() and time.monotonic() < until_s:
        time.sleep(0.01)
    return not threads_of_engines()


@pytest.mark.parametrize("memory", [None, 2**30])
def test_its_threads_end_and_a_warning_says_so(memory: int | None) -> None:
    assert wait_until_they_ended()
    engines = [null_engine("p0", "p1", memory=memory)]
    engines[0].infer("m", FEED)
    with pytest.warns(ResourceWarning, match=r"without stop\(\)"):
        drop(engines)
    assert wait_until_they_ended()


def test_what_was_asked_of_it_is_answered() -> None:
    faults = Faults()
    faults.hang()
    engines = [null_engine(faults=faults)]
    futures = [engines[0].submit("m", FEED) for _ in range(3)]
    assert faults.wait_until_hanging()
    with pytest.warns(ResourceWarning):
        drop(engines)
    faults.release()
    assert [future.exception(WAIT_S) for future in futures] == [None] * 3
    del futures
    assert wait_until_they_ended()


def test_one_that_was_stopped_is_collected_without_a_word() -> None:
    engines = [null_engine()]
    engines[0].infer("m", FEED)
    engines[0].stop()
    drop(engines)  # a ResourceWarning would be an error
