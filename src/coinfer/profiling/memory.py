"""Memory of this process, measured and not computed."""

from __future__ import annotations

import gc

import psutil

from coinfer.backends import heap

__all__ = ["resident_bytes", "settle"]


def resident_bytes() -> int:
    """Bytes of physical memory that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def settle() -> None:
    """Give free memory back to the system, so that the next reading shows what is in use."""
    gc.collect()
    heap.trim()
