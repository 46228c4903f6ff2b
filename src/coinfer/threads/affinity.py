"""Affinity: which hardware threads the system lets this process use."""

from __future__ import annotations

import os
import sys

__all__ = ["allowed_threads"]


def allowed_threads() -> set[int]:
    """Return the system's numbers of the hardware threads that this process may use.

    >>> len(allowed_threads()) >= 1
    True
    """
    if sys.platform != "linux":
        return set(range(os.cpu_count() or 1))
    # The mask of the process's first thread: coinfer may have pinned the calling thread already.
    return os.sched_getaffinity(os.getpid())
