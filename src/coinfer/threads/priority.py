"""Lower the priority of threads where the system can. Knows no processor and no backend."""

from __future__ import annotations

import logging
import os
import sys
import threading
from functools import cache

__all__ = ["LOWEST", "lower_current_thread"]

LOWEST = 19
"""The niceness of threads that yield to all others: what is left over is theirs."""

_log = logging.getLogger(__name__)


def lower_current_thread() -> bool:
    """Let the calling thread yield to all threads of normal priority; never raises.

    There is no way back without a privilege. Threads that it starts afterwards inherit this.

    Returns:
        Whether it does. False on systems other than Linux, where priorities are not a thread's own,
        and where a container forbids it; the log says so once.
    """
    if sys.platform != "linux":
        return _refused(f"{sys.platform} has no priorities of single threads")
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
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
