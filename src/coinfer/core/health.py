"""Health: which processors fail again and again, and when to try them anew. Knows no request."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["LONGEST_PROBE_S", "Health", "Outage"]

LONGEST_PROBE_S = 600.0
"""A processor that keeps failing is tried at least this often, in seconds."""


@dataclass(slots=True)
class _Record:
    """What is known of one processor.

    Attributes:
        failures: How many runs failed since the last that ended well.
        interval_s: After how long it is tried again; 0 if it was not set aside since then.
        again_s: When it is tried again; infinite if it is not set aside.
    """

    failures: int = 0
    interval_s: float = 0.0
    again_s: float = math.inf


class Outage(NamedTuple):
    """That a processor was taken out of service.

    Attributes:
        processor: Its name.
        times: How often.
        reason: Why, the last time.
        is_over: Whether it works again.
    """

    processor: str
    times: int
    reason: str
    is_over: bool

    def __str__(self) -> str:
        """Return a sentence for a person."""
        often = "once" if self.times == 1 else f"{self.times} times"
        end = "it was tried again" if self.is_over else "it stayed out until the end"
        return f"processor {self.processor!r} was set aside {often}: {self.reason}; {end}"


class Health:
    """Counts failures by processor, sets processors aside and brings them back.

    A processor that was brought back is on probation: its next failure sets it aside at once, for
    twice as long as before; its next success clears it.

    Args:
        set_aside_after: Failures in a row that set a processor aside; infinite: none do.
        probe_s: Seconds after which it is tried again, the first time.

    Attributes:
        records: What is held against processors; most of the time nothing, for none.
        next_s: The earliest moment to try one again; infinite if none is set aside.

    >>> health = Health(set_aside_after=2, probe_s=30.0)
    >>> health.failed("npu", 1.0), health.failed("npu", 2.0)
    (False, True)
    >>> health.next_s, health.due(32.0), health.failed("npu", 33.0), health.next_s
    (32.0, ['npu'], True, 93.0)
    """

    __slots__ = ("_outages", "_probe_s", "_set_aside_after", "next_s", "records")

    def __init__(self, set_aside_after: float, probe_s: float) -> None:
        self._set_aside_after = set_aside_after
        self._probe_s = probe_s
        self.records: dict[str, _Record] = {}
        self.next_s = math.inf
        self._outages: dict[str, tuple[int, str]] = {}

    def note_outage(self, processor: str, reason: str) -> None:
        """Note that a processor is taken out of service; it is never forgotten."""
        count, _ = self._outages.get(processor, (0, ""))
        self._outages[processor] = (count + 1, reason)

    def outages(self, in_service: Container[str]) -> list[Outage]:
        """Return which processors were ever taken out of service.

        Args:
            in_service: Processors that work now.
        """
        return [
            Outage(name, count, reason, name in in_service)
            for name, (count, reason) in self._outages.items()
        ]

    def failed(self, processor: str, now: float) -> bool:
        """Count a failure; tell whether the processor must be set aside."""
        record = self.records.setdefault(processor, _Record())
        record.failures += 1
        if not record.interval_s and record.failures < self._set_aside_after:
            return False
        longer_s = min(2 * record.interval_s, LONGEST_PROBE_S)
        record.interval_s = max(longer_s, self._probe_s)
        record.again_s = now + record.interval_s
        self._settle()
        return True

    def excused(self, processor: str) -> bool:
        """Take a failure back: the request failed elsewhere too, so it was not the processor's.

        Returns:
            Whether the processor was set aside for too little, then. All is forgotten in that case,
            and it must be put back.
        """
        record = self.records.get(processor)
        if record is None or not record.failures:
            return False
        record.failures -= 1
        if record.again_s == math.inf or record.failures >= self._set_aside_after:
            return False
        self.forget(processor)
        return True

    def succeeded(self, processor: str) -> None:
        """Forget failures: a run ended well."""
        self.records.pop(processor, None)

    def forget(self, processor: str) -> None:
        """Forget all: somebody else says whether the processor works."""
        if self.records.pop(processor, None) is not None:
            self._settle()

    def aside(self) -> list[str]:
        """Return the processors that are set aside."""
        return [name for name, record in self.records.items() if record.again_s < math.inf]

    def due(self, now: float) -> list[str]:
        """Return the processors to be tried again now; they are on probation then."""
        found = [name for name in self.aside() if self.records[name].again_s <= now]
        for name in found:
            self.records[name].again_s = math.inf
        self._settle()
        return found

    def _settle(self) -> None:
        self.next_s = min((r.again_s for r in self.records.values()), default=math.inf)
