"""Processor type: what decides how a library prepares a model for the CPU of this machine."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

from coinfer.documents.digest import digest_of

__all__ = ["cpu_type"]

_TELLING = frozenset(
    {
        *("vendor_id", "cpu family", "model", "model name", "flags"),  # x86
        *("CPU architecture", "CPU implementer", "CPU part", "CPU variant", "Features"),  # Arm
    }
)
"""Lines of `/proc/cpuinfo` that are equal for cores of one kind, and only for these."""

_VARIABLES = ("DNNL_", "ONEDNN_")
"""Variables with which users limit what instructions OpenVINO's kernels use begin with these."""


@cache
def cpu_type(root: Path = Path("/")) -> str:
    """Return a digest of the machine's CPU: model, instruction sets, and what limits their use.

    Machines of one kind share it, and all cores of a machine do; a machine with cores of two kinds
    is of a kind of its own.
    """
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    pairs = (line.partition(":") for line in lines)
    found = {
        f"{key.strip()}: {' '.join(sorted(value.split()))}"
        for key, _, value in pairs
        if key.strip() in _TELLING
    }
    limits = {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}
    parts: dict[str, object] = {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": sorted(found) or platform.processor(),
        "limits": limits,
    }
    return digest_of(parts)
