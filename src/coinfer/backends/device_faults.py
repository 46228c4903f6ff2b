"""Device faults: what an error of a GPU means, and which devices are lost. Imports no library.

Every backend that uses CUDA asks here. They share the device's context, so what one of them loses
is lost for all.
"""

from __future__ import annotations

import re
from enum import StrEnum

__all__ = ["LOST_DEVICES", "Fault", "LostDevices", "fault_of", "reason_of"]


class Fault(StrEnum):
    """What an error of a device means.

    Members:
        MEMORY: There is no memory left: after some is given back it may work.
        LOST: Nothing works in this process from now on.
        OTHER: This run failed.
    """

    MEMORY = "memory"
    LOST = "lost"
    OTHER = "other"


_MEMORY = (
    "out of memory",
    "failed to allocate memory",
    "status_alloc_failed",
)
"""As CUDA, onnxruntime's arena, cuBLAS and cuDNN say it."""

_LOST = (
    "an illegal memory access",
    "device-side assert",
    "illegal address",
    "illegal instruction",
    "invalid address space",
    "invalid program counter",
    "misaligned address",
    "unspecified launch failure",
    "hardware stack error",
    "uncorrectable ecc error",
    "context is destroyed",
)
"""Errors after which CUDA answers every call of the process with the same error."""

_NUMBER = re.compile(r"cuda (?:failure|error) (\d+)\b")
_LOST_NUMBERS = frozenset({214, 700, 709, 710, 714, 715, 716, 717, 718, 719})
"""The same by number (`cudaError_t` of CUDA's Runtime API)."""


def fault_of(error: BaseException) -> Fault:
    """Tell what an error of CUDA means, whichever library passes it on.

    >>> fault_of(RuntimeError("CUDA error: an illegal memory access was encountered"))
    <Fault.LOST: 'lost'>
    >>> fault_of(RuntimeError("CUDA failure 2: out of memory ; GPU=0"))
    <Fault.MEMORY: 'memory'>
    """
    text = str(error).lower()
    number = _NUMBER.search(text)
    if any(known in text for known in _LOST) or (number and int(number[1]) in _LOST_NUMBERS):
        return Fault.LOST
    return Fault.MEMORY if any(known in text for known in _MEMORY) else Fault.OTHER


class LostDevices:
    """Devices that failed for good in this process, with the reason.

    >>> lost = LostDevices()
    >>> lost.lose("CUDA:0", "an illegal memory access")
    >>> lost.reason("CUDA:0"), lost.reason("CUDA:1")
    ('an illegal memory access', '')
    """

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def lose(self, device: str, reason: str) -> None:
        """Note that nothing works there any more."""
        self._reasons.setdefault(device, reason)

    def reason(self, device: str) -> str:
        """Return why it does not work; empty if it does."""
        return self._reasons.get(device, "")

    def gone(self, device: str) -> str:
        """Return what to tell whoever wants to use it; empty if it works."""
        reason = self.reason(device)
        if not reason:
            return ""
        return f"{device} is lost for this process ({reason}); start a new one to use it again"


LOST_DEVICES = LostDevices()
"""Those of this process."""


def reason_of(fault: Fault, device: str, reason: str, lost: LostDevices) -> str:
    """Return why a run failed, with the remedy; a device that is lost is noted.

    Args:
        fault: What the error means.
        device: Where it came from.
        reason: What the library said.
        lost: Where lost devices are noted.
    """
    if fault is Fault.LOST:
        lost.lose(device, reason)
        return lost.gone(device)
    if fault is Fault.MEMORY:
        return f"{device} is out of memory ({reason}); load fewer models there"
    return reason
