"""Heap: what Python and the C library keep of memory, and when they look through it."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["settled", "trim"]


@contextmanager
def settled() -> Iterator[None]:
    """Keep the objects made so far out of garbage collections: those would pause what runs.

    With the libraries of a server loaded, a full collection stops all threads for 0.1 s.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def trim() -> None:
    """Give it back to the system, where the C library can: glibc keeps what lies between others."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (AttributeError, OSError):
            return  # not glibc
