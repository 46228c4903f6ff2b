"""Run time: for how long the system let a thread run, and kept it from running. Knows no engine."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

__all__ = ["RunTime", "run_time"]


class RunTime(NamedTuple):
    """What became of a thread since it started, but for when it waited for something.

    Attributes:
        ran_s: Seconds on a core.
        kept_s: Seconds in which it could have run, but others had the core.
    """

    ran_s: float
    kept_s: float


def run_time(thread: int) -> RunTime | None:
    """Read it for a thread of this process, by the name that the system has for it.

    Linux counts both (`/proc/self/task/N/schedstat`).

    Returns:
        None where the system does not tell, and for a thread that has ended.

    Examples:
        >>> run_time(-1) is None
        True
    """
    try:
        text = Path(f"/proc/self/task/{thread}/schedstat").read_text()
        ran, kept = text.split()[:2]
        return RunTime(int(ran) * 1e-9, int(kept) * 1e-9)
    except (OSError, ValueError):
        return None
