"""CUDA driver: which GPUs it has for this process. Asks the driver, whatever libraries there are.

It knows what files do not: `CUDA_VISIBLE_DEVICES`, what a container was given, whether it works.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["gpu_names"]

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MOST_NAME = 256


def gpu_names(library: Callable[[str], Any] = ctypes.CDLL) -> tuple[str, ...]:
    """Return the names of the GPUs that CUDA numbers 0, 1, ... in this process; none without CUDA.

    Args:
        library: Loads a library of the system by its name.
    """
    try:
        cuda = library(_LIBRARY)
    except OSError:
        return ()
    count = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(_name(cuda, number) for number in range(count.value))


def _name(cuda: Any, number: int) -> str:
    device, text = ctypes.c_int(), ctypes.create_string_buffer(_MOST_NAME)
    failed = cuda.cuDeviceGet(ctypes.byref(device), number)
    if failed or cuda.cuDeviceGetName(text, _MOST_NAME, device):
        return f"GPU {number}"
    return text.value.decode("utf-8", errors="replace")
