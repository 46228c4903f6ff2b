"""Memory of this process, measured and not computed."""

from __future__ import annotations

import ctypes
import gc
import sys

import psutil

__all__ = ["resident_bytes", "settle"]


def resident_bytes() -> int:
    """Bytes of physical memory that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def settle() -> None:
    """Give free memory back to the system, so that the next reading shows what is in use."""
    gc.collect()
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (AttributeError, OSError):
            return  # not glibc: readings then contain what the allocator keeps
