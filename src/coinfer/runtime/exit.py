"""Exit: before the interpreter ends, engines stop and their threads return from the libraries.

Up to Python 3.13 a thread that returns to an ending interpreter is unwound through whatever called
it. In a library written in C++ that aborts the process, after all its work was done.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from typing import Protocol

__all__ = ["Leaver", "leave_at_exit"]

_PATIENCE_S = 10.0
"""For all of them: what hangs must not keep the process."""


class Leaver(Protocol):
    """Something with threads."""

    def leave(self) -> None:
        """Take and start nothing more; returns at once."""

    def wait_until_left(self, timeout_s: float) -> None:
        """Wait for what runs, and for the threads."""

    def forsake(self) -> None:
        """Note that this is the child of a fork, where there are no threads."""


class _Crowd:
    """All that must leave."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._members: weakref.WeakSet[Leaver] = weakref.WeakSet()
        self._leaves = False

    def add(self, leaver: Leaver) -> None:
        with self._lock:
            self._members.add(leaver)
            leaves = self._leaves
        if leaves:  # made while the interpreter ends
            leaver.leave()

    def leave(self) -> None:
        with self._lock:
            self._leaves = True
            members = list(self._members)
        for member in members:
            member.leave()
        until_s = time.monotonic() + _PATIENCE_S
        for member in members:
            member.wait_until_left(max(until_s - time.monotonic(), 0.0))

    def forsake(self) -> None:
        """There are no threads in the child of a fork."""
        self._lock = threading.Lock()
        for member in list(self._members):
            member.forsake()
        self._members.clear()


_crowd = _Crowd()
leave_at_exit = _crowd.add
"""Let something leave, and wait for it, when the interpreter ends, should it still be there."""

# On import, so that it comes after all that a program registers afterwards.
atexit.register(_crowd.leave)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_crowd.forsake)
