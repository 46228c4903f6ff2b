"""Process memory: what the system says that this process holds. Believes no profile."""

from __future__ import annotations

from pathlib import Path

from coinfer.metrics.memory_track import ProcessMemory

__all__ = ["process_memory"]

_STATUS = Path("/proc/self/status")


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
