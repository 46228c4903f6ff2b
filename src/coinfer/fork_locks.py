"""Fork locks: locks that are free in the child of a fork, whoever held them in the parent.

The threads that held them are not there any more, and would never give them back.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, TypeVar

__all__ = ["free_after_fork"]

_Lock = TypeVar("_Lock")

_locks: weakref.WeakSet[Any] = weakref.WeakSet()


def free_after_fork(lock: _Lock) -> _Lock:
    """Have a lock of `threading` be free in each child that is forked, and return it.

    It must guard nothing that a thread could leave half done: setting a value is fine.

    >>> import threading
    >>> free_after_fork(threading.Lock()).locked()
    False
    """
    _locks.add(lock)
    return lock


def _free_all() -> None:
    for lock in list(_locks):
        lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_all)
