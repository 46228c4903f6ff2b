"""Pin threads to cores where the system can. Knows no processor and no backend."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

__all__ = ["can_pin", "pin_current_thread", "placed_on"]

_log = logging.getLogger(__name__)


def pin_current_thread(cores: Collection[int]) -> bool:
    """Let the calling thread run on these cores only; never raises.

    Threads that it starts afterwards inherit this, so make thread pools in a thread that is not
    pinned.

    Args:
        cores: Operating-system core numbers; none means leave the thread alone.

    Returns:
        Whether the thread is pinned. False on systems other than Linux and where a container
        forbids it; the log says so once.

    >>> pin_current_thread(())
    False
    """
    if not cores:
        return False
    if sys.platform != "linux":
        return _refused(f"{sys.platform} has no call for it")
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, ValueError, OverflowError) as error:
        # The message does not name the cores: otherwise every worker would log one.
        return _refused(str(error))
    return True


@contextmanager
def placed_on(cores: Collection[int]) -> Iterator[None]:
    """Let the calling thread run on these cores only while something is done; never raises.

    Memory that it touches first then lies on their NUMA node.

    Args:
        cores: Operating-system core numbers; none means leave the thread alone.

    >>> with placed_on(()):
    ...     pass
    """
    if not cores or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    moved = not before <= set(cores) and pin_current_thread(cores)
    try:
        yield
    finally:
        if moved:
            pin_current_thread(before)


def can_pin(cores: Collection[int]) -> bool:
    """Try pinning another thread to each core in turn, and read it back.

    Returns:
        Whether every core could be pinned to; False for no cores.
    """
    with ThreadPoolExecutor(1) as thread:
        return bool(cores) and all(thread.map(_pins_to, cores))


def _pins_to(core: int) -> bool:
    # The type checker knows this call only after a check of the platform.
    return (
        pin_current_thread((core,))
        and sys.platform == "linux"
        and (os.sched_getaffinity(0) == {core})
    )


@cache  # so each reason is said once
def _refused(reason: str) -> bool:
    _log.warning("threads are not pinned to cores: %s; everything else works", reason)
    return False
