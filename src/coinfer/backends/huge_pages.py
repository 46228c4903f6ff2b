"""Huge pages: 2 MiB of memory by one entry of a processor's table of pages, in place of 4 KiB.

A run reads all of a network's weights, and the table knows where some megabytes are: for the rest
it is looked up page by page, in virtual machines twice. Many systems give huge pages only to those
that ask for them, and neither libraries nor Python do. So what a session holds is put into huge
pages once it has run for the first time, where Linux can do that at once (6.1 or later).

Only what is in use is: 2 MiB of which an eighth was never touched stay as they are, so at most an
eighth more memory is taken. `never` in `/sys/kernel/mm/transparent_hugepage/enabled` forbids all of
it.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

__all__ = ["are_huge_pages_allowed", "use_huge_pages"]

_HUGE: Final = 2**21
_PAGE: Final = 2**12
_PER_HUGE: Final = _HUGE // _PAGE
_FEWEST: Final = _PER_HUGE * 7 // 8
"""Pages of a huge one that must be there already."""

_MADV_COLLAPSE: Final = 25
_LEAST_NEW: Final = 2**24
"""Bytes that must have come or gone since the last look."""

_MOST_RESERVED: Final = 4
"""What is larger than so many times all that is resident is hardly in use; to look takes long."""

_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_lock = threading.Lock()
_seen = 0
"""Bytes that were resident after the last look."""


def are_huge_pages_allowed(enabled: Path = _ENABLED) -> bool:
    """Tell whether the system may put memory of this process into huge pages.

    Args:
        enabled: The file that says so; others in tests.
    """
    try:
        return sys.platform == "linux" and "[never]" not in enabled.read_text("utf-8")
    except OSError:
        return False  # a kernel without them


def use_huge_pages() -> None:
    """Put what this process holds into huge pages, as far as that is in use.

    Does nothing where the system cannot or must not, or where little came since the last time.
    """
    global _seen
    if not are_huge_pages_allowed() or os.sysconf("SC_PAGE_SIZE") != _PAGE:
        return
    with _lock:
        try:
            if abs(_resident() - _seen) < _LEAST_NEW:
                return
            advise = ctypes.CDLL(None).madvise
            with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
                for start, end in _mappings(_MOST_RESERVED * _resident()):
                    for first, last in _in_use(pagemap.fileno(), start, end):
                        size = ctypes.c_size_t(last - first)
                        advise(ctypes.c_void_p(first), size, _MADV_COLLAPSE)  # or nothing happens
            _seen = _resident()
        except (AttributeError, OSError):
            return  # another C library, or a system that shows nothing of it


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text("ascii").split()[1]
    return int(pages) * _PAGE


def _mappings(most: int) -> Iterator[tuple[int, int]]:
    """Yield where private memory without a file lies that holds a huge page, from and to.

    Args:
        most: Bytes of one; larger ones are left out.
    """
    for line in Path("/proc/self/maps").read_text("utf-8", "replace").splitlines():
        where, may, _offset, _device, inode, *name = line.split(maxsplit=5)
        if may != "rw-p" or inode != "0" or (name and name[0].startswith("[stack")):
            continue
        start, end = (int(each, 16) for each in where.split("-"))
        start, end = -(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE
        if start < end <= start + most:
            yield start, end


def _in_use(pagemap: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a mapping that are in use, in whole huge pages, from and to."""
    entries = np.frombuffer(
        os.pread(pagemap, (end - start) // _PAGE * 8, start // _PAGE * 8), "<u8"
    )
    are_there = (entries >> np.uint64(63)).reshape(-1, _PER_HUGE).sum(axis=1) >= _FEWEST
    edges = np.flatnonzero(np.diff(are_there, prepend=False, append=False))
    for first, last in edges.reshape(-1, 2).tolist():
        yield start + first * _HUGE, start + last * _HUGE
