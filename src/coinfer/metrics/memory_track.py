"""Memory track: what was loaded and what the process held, over time. Knows no place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from coinfer.core.events import MemoryMeasured
from coinfer.metrics.loads import EvictionRecord, LoadRecord
from coinfer.metrics.records import Window

__all__ = [
    "NO_MEMORY",
    "MemoryCounts",
    "MemoryRecords",
    "MemorySample",
    "MemoryTrack",
    "ProcessMemory",
]

_Memories: TypeAlias = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Bytes of physical memory that a process holds, as the system says it.

    Attributes:
        anonymous: What nobody but this process has: it can only go back if it is freed.
        mapped: Pages of files. Others may have them too, and the system can drop them at any time.
    """

    anonymous: int
    mapped: int

    @property
    def total(self) -> int:
        """Their sum."""
        return self.anonymous + self.mapped


class MemorySample(NamedTuple):
    """One moment.

    Attributes:
        at_s: When, in the driver's time.
        believed: By memory that has a budget: its bytes, and those of them that are taken.
        held: What the process was measured to hold; None if it was not measured at this moment.
    """

    at_s: float
    believed: _Memories
    held: ProcessMemory | None


class MemoryRecords(NamedTuple):
    """What happened in memories with a budget, each in order of time.

    Attributes:
        loads: What was loaded.
        evictions: What was evicted.
        samples: What was taken, and what the process held.
    """

    loads: Sequence[LoadRecord] = ()
    evictions: Sequence[EvictionRecord] = ()
    samples: Sequence[MemorySample] = ()


NO_MEMORY = MemoryRecords()


@dataclass(slots=True)
class MemoryCounts:
    """The most of the window.

    Attributes:
        believed: By memory, the most bytes that were taken.
        held: What the process held when it held most; None where that was not measured.
    """

    believed: dict[str, int] = field(default_factory=dict)
    held: ProcessMemory | None = None


class MemoryTrack:
    """Takes note of memory whenever it is told to.

    Args:
        keep: Whether to keep every moment.

    Attributes:
        counts: The most of the window.
        samples: Every moment, if they are kept.
        memories: Says what is taken of memories that have a budget; None: nobody does yet.
    """

    def __init__(self, *, keep: bool) -> None:
        self.counts = MemoryCounts()
        self.samples: list[MemorySample] = []
        self.memories: Callable[[], _Memories] | None = None
        self._keep = keep

    def note(self, now: float, window: Window, measured: MemoryMeasured | None = None) -> None:
        """Take note of a moment."""
        if self.memories is None:
            return
        believed = self.memories()
        held = None
        if measured is not None and (measured.anonymous or measured.mapped):
            held = ProcessMemory(measured.anonymous, measured.mapped)
        if window.start_s <= now < window.end_s:
            counts = self.counts
            for name, (_, taken) in believed.items():
                counts.believed[name] = max(int(taken), counts.believed.get(name, 0))
            if held is not None and (counts.held is None or held.total > counts.held.total):
                counts.held = held
        if self._keep:
            self.samples.append(MemorySample(now, believed, held))
