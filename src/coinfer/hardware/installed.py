"""Installed: the backends that are worth asking on this machine.

torch takes seconds and hundreds of MiB to import, and on a CPU others are faster. So it is left
alone unless there is a GPU for it, or somebody has named it before.
"""

from __future__ import annotations

from coinfer.backends import Backend, available, backend_names
from coinfer.backends.registry import is_started
from coinfer.hardware.nvidia import find_nvidia

__all__ = ["installed"]

_FOR_GPUS = frozenset({"torch"})


def installed() -> tuple[Backend, ...]:
    """Import the libraries that are installed; return their backends.

    >>> [backend.name for backend in installed()][0]
    'onnxruntime'
    """
    names = [name for name in backend_names() if name not in _FOR_GPUS or _is_wanted(name)]
    return tuple(each.backend for each in available(names) if each.backend is not None)


def _is_wanted(name: str) -> bool:
    return is_started(name) or find_nvidia().reachable
