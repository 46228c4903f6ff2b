"""Run faults: whether a run on CPU cores failed for what its request brought."""

from __future__ import annotations

import errno
import os
import re

__all__ = ["is_of_inputs"]

_SYSTEM = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EIO)
_LACKS = re.compile(
    "|".join(
        (
            "alloc|memoryerror|out of memory|not enough memory|insufficient memory",
            *(re.escape(os.strerror(each)) for each in _SYSTEM),
        )
    ),
    re.IGNORECASE,
)


def is_of_inputs(reason: str) -> bool:
    """Tell whether a library's reason for a failed run on CPU cores is what the request brought.

    Kernels of CPU cores do the same with the same inputs each time. Of a model that was loaded,
    they refuse sizes and values, such as an index beyond a table; else they lack memory, threads
    or whatever else the system gives.

    Args:
        reason: What the library said.

    >>> is_of_inputs("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : indices element out of bounds")
    True
    >>> is_of_inputs("Failed to allocate memory for requested buffer of size 4398046511104")
    False
    >>> is_of_inputs("pthread_create failed: Resource temporarily unavailable")
    False
    """
    return _LACKS.search(reason) is None
