"""Find the cores that this process may use. Knows no backend.

These are the cores of the affinity mask, one logical processor per physical core, and not more
than the control group's quota. The host's cores are never what counts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from coinfer.hardware import cgroup

__all__ = ["Cores", "available_cores", "find_cores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """The cores to use, and why these.

    Attributes:
        numbers: Operating-system numbers, ascending, at least one.
        host: Logical processors of the machine.
        allowed: Logical processors that the affinity mask allows.
        physical: Physical cores among the allowed.
        quota: Processors' worth of time that the control group grants, or None for no limit.
        pinnable: Whether pinning to `numbers` helps: the system can pin, and the group owns the
            cores. Under a quota it does not: every container would pin to the same first cores.
    """

    numbers: tuple[int, ...]
    host: int
    allowed: int
    physical: int
    quota: float | None
    pinnable: bool

    @property
    def reason(self) -> str:
        """Why there are this many, in one line."""
        parts = [f"{self.host} logical on the machine", f"{self.allowed} allowed by affinity"]
        if self.physical != self.allowed:
            parts.append(f"{self.physical} physical")
        parts.append("no quota" if self.quota is None else f"quota {self.quota:g}")
        return ", ".join(parts)


def available_cores(*, root: Path = Path("/")) -> tuple[int, ...]:
    """Return the operating-system numbers of the cores to use, ascending, at least one.

    >>> len(available_cores()) >= 1
    True
    """
    return find_cores(root=root).numbers


def find_cores(*, root: Path = Path("/"), affinity: Iterable[int] | None = None) -> Cores:
    """Find the cores and the reason for their number.

    Args:
        root: Where `/proc` and `/sys` are; tests give another.
        affinity: Logical processors allowed; asked from the system if None.
    """
    allowed = sorted(_affinity() if affinity is None else affinity)
    physical = _one_per_physical_core(allowed, root)
    quota = cgroup.cpu_quota(root)
    count = len(physical) if quota is None else max(1, min(len(physical), int(quota)))
    return Cores(
        numbers=tuple(physical[:count]),
        host=os.cpu_count() or len(allowed),
        allowed=len(allowed),
        physical=len(physical),
        quota=quota,
        pinnable=sys.platform == "linux" and count == len(physical),
    )


def _affinity() -> set[int]:
    if sys.platform != "linux":
        return set(range(os.cpu_count() or 1))
    # The mask of the process's first thread: coinfer may have pinned the calling thread already.
    return os.sched_getaffinity(os.getpid())


def _one_per_physical_core(numbers: list[int], root: Path) -> list[int]:
    """Keep the first of every set of hardware threads that share a core.

    Two networks on two threads of one core slow each other by an amount that no profile of a
    network alone can tell.
    """
    seen: set[str] = set()
    kept = []
    for number in numbers:
        siblings = _siblings(number, root)
        if siblings not in seen:
            seen.add(siblings)
            kept.append(number)
    return kept


def _siblings(number: int, root: Path) -> str:
    path = root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"
    try:
        return path.read_text(encoding="ascii", errors="replace").strip() or str(number)
    except OSError:
        return str(number)
