"""Process memory: what the system says that this process holds. Believes no profile."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

__all__ = ["ProcessMemory", "process_memory"]

_STATUS = Path("/proc/self/status")


class ProcessMemory(NamedTuple):
    """Bytes in physical memory now.

    Attributes:
        anonymous: What nobody but this process has: it can only go back if it is freed.
        mapped: Pages of files. Others may have them too, and the system can drop them at any time.
    """

    anonymous: int
    mapped: int


def process_memory(status: Path = _STATUS) -> ProcessMemory | None:
    """Return what this process holds; None where the system does not tell the two apart.

    Args:
        status: The file in which Linux says it.
    """
    try:
        lines = status.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    sizes = {name: text.split() for name, _, text in (line.partition(":") for line in lines)}
    if not {"RssAnon", "RssFile"} <= sizes.keys():
        return None
    anonymous, mapped = (int(sizes[name][0]) * 1024 for name in ("RssAnon", "RssFile"))
    return ProcessMemory(anonymous, mapped)
