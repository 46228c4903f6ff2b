"""Exit: when the interpreter ends, workers come back from their libraries first.

Up to Python 3.13 a thread that returns to an ending interpreter is unwound through whatever called
it. In a library written in C++ that aborts the process, after all its work was done.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from typing import Protocol

__all__ = ["await_at_exit"]

_PATIENCE_S = 10.0
"""For all of them: what hangs and was not noticed must not keep the process."""


class Leaver(Protocol):
    """A thread that ends when it is told to.

    Attributes:
        retired: Whether it was given up: it may hang, and is not waited for.
    """

    retired: bool

    def stop(self) -> None:
        """End after what runs; returns at once."""
        ...

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False if it still runs."""
        ...


_leavers: weakref.WeakSet[Leaver] = weakref.WeakSet()


def await_at_exit(leaver: Leaver) -> None:
    """Stop it and wait for it when the interpreter ends, should it still run then."""
    _leavers.add(leaver)


def _leave() -> None:
    leavers = list(_leavers)
    for leaver in leavers:
        leaver.stop()
    until_s = time.monotonic() + _PATIENCE_S
    for leaver in leavers:
        leaver.join(0.0 if leaver.retired else max(until_s - time.monotonic(), 0.0))


atexit.register(_leave)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leavers.clear)  # there are no threads in a child
