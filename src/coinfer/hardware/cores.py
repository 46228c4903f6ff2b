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

from coinfer.hardware.topology import find_topology
from coinfer.machine.topology import Topology
from coinfer.threads.affinity import allowed_threads

__all__ = ["Cores", "available_cores", "find_cores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """The cores to use, and why these.

    Attributes:
        numbers: Operating-system numbers, at least one, in the order of locality: cores of one
            kind, NUMA node and cache stand together.
        host: Logical processors of the machine.
        allowed: Logical processors that the affinity mask allows.
        physical: Physical cores among the allowed.
        quota: Processors' worth of time that the control group grants, or None for no limit.
        pinnable: Whether pinning to `numbers` helps: the system can pin, and the group owns the
            cores. Under a quota it does not: every container would pin to the same first cores.
        topology: All cores of the machine and what they share; None: nothing is known.
    """

    numbers: tuple[int, ...]
    host: int
    allowed: int
    physical: int
    quota: float | None
    pinnable: bool
    topology: Topology | None = None

    @property
    def layout(self) -> Topology:
        """The topology with these cores in use; flat where they cannot be pinned to.

        Whoever is not pinned may run on any core, so nothing is said of what it shares.
        """
        if self.topology is None or not self.pinnable:
            return Topology.flat(self.numbers)
        return self.topology.using(self.numbers)

    @property
    def reason(self) -> str:
        """Why there are this many, in one line."""
        parts = [f"{self.host} logical on the machine", f"{self.allowed} allowed by affinity"]
        if self.physical != self.allowed:
            parts.append(f"{self.physical} physical")
        parts.append("no quota" if self.quota is None else f"quota {self.quota:g}")
        return ", ".join(parts)


def available_cores(*, root: Path = Path("/")) -> tuple[int, ...]:
    """Return the operating-system numbers of the cores to use, at least one.

    >>> len(available_cores()) >= 1
    True
    """
    return find_cores(root=root).numbers


def find_cores(*, root: Path = Path("/"), affinity: Iterable[int] | None = None) -> Cores:
    """Find the cores and the reason for their number.

    Of hardware threads that share a core one is used: two networks on two threads of one core slow
    each other by an amount that no profile of a network alone can tell.

    Args:
        root: Where `/proc` and `/sys` are; tests give another.
        affinity: Logical processors allowed; asked from the system if None.
    """
    allowed = sorted(allowed_threads() if affinity is None else affinity)
    found = find_topology(root=root, affinity=allowed)
    physical = sum(not set(allowed).isdisjoint(core.threads) for core in found.cores)
    return Cores(
        numbers=found.used,
        host=os.cpu_count() or len(allowed),
        allowed=len(allowed),
        physical=physical,
        quota=found.quota,
        pinnable=sys.platform == "linux" and len(found.used) == physical,
        topology=found,
    )
