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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

from coinfer.threads.pinning import pin_current_thread

__all__ = [
    "LOWEST",
    "above_idle_class",
    "give_up_lag",
    "is_lowered",
    "lower_current_thread",
    "lower_marked",
    "mark_current_thread",
    "mark_of_current_thread",
    "why_not_lowered",
]

LOWEST = 19
"""The niceness of threads that yield to all others: what is left over is theirs.

They are of the class `SCHED_IDLE` as well, where that is allowed. A thread of niceness 19 that has
just been given a core keeps it for up to 4 ms, even from one that wakes up with 68 times its
weight; one of that class never does (`check_preempt_wakeup_fair` in Linux's kernel/sched/fair.c).
"""

_spinning: list[None] = []
_TASKS = Path("/proc/self/task")
_MOST_SHARE = 0.25
"""What a lowered thread may get beside one of normal priority; the weights say 0.014 at most."""

_TRIED_S = 0.04
_TRIALS = 5

_yield = getattr(os, "sched_yield", None)
_log = logging.getLogger(__name__)


def lower_current_thread() -> bool:
    """Let the calling thread yield to all threads of normal priority; never raises.

    There is no way back without a privilege. Threads that it starts afterwards inherit this.

    Returns:
        Whether it does. False on systems other than Linux, where priorities are not a thread's own,
        and where a container forbids it; the log says so once.
    """
    return _lowered(threading.get_native_id())


def is_lowered() -> bool:
    """Tell whether the calling thread gives way to threads of normal priority."""
    if sys.platform != "linux":
        return False
    if os.getpriority(os.PRIO_PROCESS, 0) >= LOWEST:
        return True
    with suppress(OSError):  # a container may forbid to ask
        return os.sched_getscheduler(0) == os.SCHED_IDLE
    return False


@contextmanager
def above_idle_class() -> Iterator[None]:
    """Let threads that are lowered meanwhile stay above `SCHED_IDLE`, of which something spins."""
    _spinning.append(None)
    try:
        yield
    finally:
        _spinning.pop()


def give_up_lag() -> None:
    """Call before the calling thread sleeps until a moment, to wake up in time; never raises.

    Linux's scheduler owes a thread the time for which it was kept from a core. One that goes to
    sleep with such a claim, as after handing over to a worker that took its core for a run, wakes
    up 3 to 8 ms late beside lowered threads: seen with Linux 6.18 in every second such case, with
    niceness and with `SCHED_IDLE`, and never after giving the claim up. Yielding does that.
    """
    if _yield is not None:
        _yield()


def mark_current_thread(mark: str) -> None:
    """Mark the calling thread, and what it starts afterwards; at most 15 characters."""
    path = _TASKS / str(threading.get_native_id()) / "comm"
    with suppress(OSError):  # nothing can be lowered there
        file = os.open(path, os.O_WRONLY)
        try:
            os.write(file, mark.encode())
        finally:
            os.close(file)


def mark_of_current_thread() -> str:
    """Return the calling thread's mark; empty where threads have none."""
    try:
        return (_TASKS / str(threading.get_native_id()) / "comm").read_text().rstrip("\n")
    except OSError:
        return ""


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
    """Try on a core whether a lowered thread yields to a normal one; once per process.

    That takes 40 ms, and five times as long if it does not.

    Returns:
        Why it does not; empty if it does.
    """
    if sys.platform != "linux":
        return f"{sys.platform} has no priorities of single threads"
    return _tried(core)


@cache
def _tried(core: int) -> str:
    """Try a few times: on a busy machine, others may keep one of the two from running at all."""
    share = 1.0
    for _ in range(_TRIALS):
        low, normal = _trial(core)
        if low < 0:
            return "the system does not let threads lower their priority"
        share = low / max(low + normal, 1)
        if share <= _MOST_SHARE:
            return ""
    return f"a lowered thread still gets {share:.0%} of a core"


def _trial(core: int) -> tuple[int, int]:
    """Let a lowered and a normal thread work side by side; return how much each got done."""
    together = threading.Barrier(2)

    def work(*, lowered: bool) -> int:
        pin_current_thread((core,))
        together.wait()
        if lowered and not lower_current_thread():
            return -1
        count, data = 0, bytes(1 << 16)
        until_s = time.perf_counter() + _TRIED_S
        while time.perf_counter() < until_s:
            sha256(data)  # lets other threads run meanwhile
            count += 1
        return count

    with ThreadPoolExecutor(2, "coinfer-trial") as threads:
        trials = [threads.submit(work, lowered=lowered) for lowered in (True, False)]
        return trials[0].result(), trials[1].result()


def _lowered(thread: int) -> bool:
    if sys.platform != "linux":
        return _refused(f"{sys.platform} has no priorities of single threads")
    try:
        os.setpriority(os.PRIO_PROCESS, thread, LOWEST)
        if not _spinning:
            with suppress(PermissionError):  # the niceness remains
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
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
