"""Binding: keeps OpenVINO from moving the threads that call it. Imports no openvino.

Each run without a stream passes an arena of oneTBB, which binds the calling thread to all cores of
the process for as long as the run lasts, and gives it back where it was pinned afterwards. So two
runs, each pinned to a core of its own, are at times put on one core while the other one is idle.
oneTBB binds through hwloc, which binds nothing where it is told that what it describes is another
system than this one. It asks for that once per process, when the CPU plugin is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["unbound"]

_THIS_SYSTEM = "HWLOC_THISSYSTEM"


@contextmanager
def unbound() -> Iterator[None]:
    """Let what is loaded meanwhile leave threads where they are; whoever set it has decided."""
    if _THIS_SYSTEM in os.environ:
        yield
        return
    os.environ[_THIS_SYSTEM] = "0"
    try:
        yield
    finally:
        os.environ.pop(_THIS_SYSTEM, None)
