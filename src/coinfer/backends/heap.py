"""Heap: what Python and the C library keep of memory, and when they look through it."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Turnover", "settled", "trim"]

_FULL_AFTER = 4000
"""Collections of the middle generation before a full one; Python's own number is 10."""


class Turnover:
    """Has the collector look at what is new while old objects go as new ones come.

    Python looks once there are some hundred objects more than at its last look. Where each that
    comes takes the place of an old one, as with connections, there never are: the young pile up,
    and one look at them takes as long as a full collection.

    Args:
        many: Things that come between two looks, each with some objects of its own.

    >>> connections = Turnover(many=32)
    >>> connections.note()
    """

    def __init__(self, many: int) -> None:
        self._many = many
        self._left = many

    def note(self) -> None:
        """Note that one more came; this may look."""
        self._left -= 1
        if self._left == 0:
            self._left = self._many
            if gc.isenabled():
                gc.collect(1)


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
