"""Loads: what was loaded and evicted while running, counted and recorded. Knows no request."""

from __future__ import annotations

from dataclasses import dataclass, replace

from coinfer.core.commands import Evict, Load
from coinfer.core.events import Loaded, LoadFailed
from coinfer.machine.span import Span
from coinfer.metrics.records import Window

__all__ = ["EvictionRecord", "LoadCounts", "LoadRecord", "Loads"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRecord:
    """One load. Times are in the driver's time, in seconds.

    Attributes:
        model: What was loaded.
        span: Which unit subgraphs of it.
        processors: For which processors.
        size_bytes: What it takes.
        started_s: When loading began.
        finished_s: When it was there, or had failed; None: not yet.
        reason: Why it failed; empty otherwise.
    """

    model: str
    span: Span
    processors: tuple[str, ...]
    size_bytes: int
    started_s: float
    finished_s: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionRecord:
    """One eviction, also of what was loaded before anybody looked.

    Attributes:
        model: What was evicted.
        span: Which unit subgraphs of it.
        processors: From which processors.
        at_s: When, in the driver's time.
    """

    model: str
    span: Span
    processors: tuple[str, ...]
    at_s: float


@dataclass(slots=True)
class LoadCounts:
    """What the loader did inside the window.

    Attributes:
        loads: Loads that ended well in the window.
        failed: Those that failed.
        evictions: Evictions in the window.
        load_s: Seconds of loading, clipped to the window.
        loaded_bytes: What these loads brought.
    """

    loads: int = 0
    failed: int = 0
    evictions: int = 0
    load_s: float = 0.0
    loaded_bytes: int = 0

    def __bool__(self) -> bool:
        """Whether anything was loaded or evicted."""
        return bool(self.loads or self.failed or self.evictions or self.load_s)


class Loads:
    """Takes note of loads and evictions.

    Args:
        keep: Whether to keep a record of each.

    Attributes:
        counts: Those of the window.
        evictions: All of them, if records are kept.
    """

    def __init__(self, *, keep: bool) -> None:
        self.counts = LoadCounts()
        self.evictions: list[EvictionRecord] = []
        self._keep = keep
        self._records: list[LoadRecord] = []
        self._current: LoadRecord | None = None

    def begin(self, load: Load, now: float) -> None:
        """Note that a load began."""
        span, processors, size = load.span, load.processors, load.size_bytes
        self._current = LoadRecord(
            model=load.variant,
            span=span,
            processors=processors,
            size_bytes=size,
            started_s=now,
        )

    def end(self, event: Loaded | LoadFailed, now: float, window: Window) -> None:
        """Note that it ended."""
        record, self._current = self._current, None
        if record is None:
            return  # it began before the first step that was observed
        reason = event.reason if isinstance(event, LoadFailed) else ""
        record = replace(record, finished_s=now, reason=reason)
        low, high = max(record.started_s, window.start_s), min(now, window.end_s)
        self.counts.load_s += max(0.0, high - low)
        # What takes no time was loaded before a simulation began.
        if window.start_s <= now < window.end_s and now > record.started_s:
            self.counts.failed += bool(reason)
            self.counts.loads += not reason
            self.counts.loaded_bytes += 0 if reason else record.size_bytes
        if self._keep:
            self._records.append(record)

    def evict(self, evict: Evict, now: float, window: Window) -> None:
        """Note an eviction."""
        if evict.place < 0:
            return  # the model was unloaded
        if window.start_s <= now < window.end_s:
            self.counts.evictions += 1
        if self._keep:
            self.evictions.append(
                EvictionRecord(
                    model=evict.model, span=evict.span, processors=evict.processors, at_s=now
                )
            )

    def records(self) -> tuple[LoadRecord, ...]:
        """Return the loads in order, what is being loaded included."""
        if not self._keep or self._current is None:
            return tuple(self._records)
        return (*self._records, self._current)
