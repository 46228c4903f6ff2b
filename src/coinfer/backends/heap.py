"""Heap: what Python and the C library keep of memory, and when they look through it."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["settled", "trim"]

_FULL_AFTER = 100
"""Collections of the middle generation before a full one; Python's own number is 10."""


@contextmanager
def settled() -> Iterator[None]:
    """Keep the objects made so far out of garbage collections, and make full ones rare.

    A full collection stops all threads: for 0.1 s with the libraries of a server loaded, and as
    long for 10,000 connections that came later. It finds little that the others do not.
    """
    first, second, third = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(first, second, max(third, _FULL_AFTER))
    try:
        yield
    finally:
        gc.set_threshold(first, second, third)
        gc.unfreeze()


def trim() -> None:
    """Give it back to the system, where the C library can: glibc keeps what lies between others."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (AttributeError, OSError):
            return  # not glibc
