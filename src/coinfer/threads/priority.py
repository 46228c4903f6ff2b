"""Lower the priority of threads where the system can. Knows no processor and no backend.

Threads can be marked first and lowered later, all of a mark at once: a mark is the name that Linux
knows a thread by, and what a marked thread starts inherits it, as the pool of a library does.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

from coinfer.threads.pinning import pin_current_thread

__all__ = [
    "LOWEST",
    "lower_current_thread",
    "lower_marked",
    "mark_current_thread",
    "why_not_lowered",
]

LOWEST = 19
"""The niceness of threads that yield to all others: what is left over is theirs."""

_TASKS = Path("/proc/self/task")
_MOST_SHARE = 0.25
"""What a lowered thread may get beside one of normal priority; the weights say 0.014."""

_TRIED_S = 0.04

_log = logging.getLogger(__name__)


def lower_current_thread() -> bool:
    """Let the calling thread yield to all threads of normal priority; never raises.

    There is no way back without a privilege. Threads that it starts afterwards inherit this.

    Returns:
        Whether it does. False on systems other than Linux, where priorities are not a thread's own,
        and where a container forbids it; the log says so once.
    """
    return _lowered(threading.get_native_id())


def mark_current_thread(mark: str) -> None:
    """Mark the calling thread, and what it starts afterwards; at most 15 characters."""
    with suppress(OSError):  # nothing can be lowered there
        (_TASKS / str(threading.get_native_id()) / "comm").write_text(mark)


def lower_marked(mark: str) -> bool:
    """Lower all threads of this process with a mark, as `lower_current_thread` does one."""
    done = True
    try:
        tasks = list(_TASKS.iterdir())
    except OSError as error:
        return _refused(str(error))
    for task in tasks:
        with suppress(OSError):  # it ended meanwhile
            if (task / "comm").read_text().rstrip("\n") == mark:
                done &= _lowered(int(task.name))
    return done


def why_not_lowered(core: int) -> str:
    """Try on a core whether a lowered thread yields to a normal one; takes 40 ms, once.

    Returns:
        Why it does not; empty if it does.
    """
    if sys.platform != "linux":
        return f"{sys.platform} has no priorities of single threads"
    return _tried(core)


@cache
def _tried(core: int) -> str:
    until_s = time.perf_counter() + _TRIED_S

    def work(*, lowered: bool) -> int:
        pin_current_thread((core,))
        if lowered and not lower_current_thread():
            return -1
        count, data = 0, bytes(1 << 16)
        while time.perf_counter() < until_s:
            sha256(data)  # lets other threads run meanwhile
            count += 1
        return count

    with ThreadPoolExecutor(2, "coinfer-trial") as threads:
        trials = [threads.submit(work, lowered=lowered) for lowered in (True, False)]
        low, normal = (trial.result() for trial in trials)
    if low < 0:
        return "the system does not let threads lower their priority"
    if low > _MOST_SHARE * (low + normal):
        return f"a lowered thread still gets {low / (low + normal):.0%} of a core"
    return ""


def _lowered(thread: int) -> bool:
    if sys.platform != "linux":
        return _refused(f"{sys.platform} has no priorities of single threads")
    try:
        os.setpriority(os.PRIO_PROCESS, thread, LOWEST)
    except ProcessLookupError:
        return True  # it ended meanwhile
    except OSError as error:
        return _refused(str(error))
    return True


@cache  # so each reason is said once
def _refused(reason: str) -> bool:
    _log.warning(
        "threads keep their priority: %s; urgent requests share cores with what they should "
        "preempt, everything else works",
        reason,
    )
    return False
