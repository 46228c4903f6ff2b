"""Failures: counts of the runs that failed, by model and processor. Judges none (`health` does)."""

from __future__ import annotations

from dataclasses import dataclass

from coinfer.core.commands import Execution

__all__ = ["FailureCount", "Failures"]


@dataclass(slots=True)
class FailureCount:
    """What failed of one model on one processor.

    Attributes:
        model: The model.
        processor: The processor.
        reason: Why, the last time.
        runs: Runs that failed.
        retried: Those of them after which a request was tried again. The caller of such a request
            may never see that anything went wrong.
    """

    model: str
    processor: str
    reason: str = ""
    runs: int = 0
    retried: int = 0

    def __str__(self) -> str:
        """Return a sentence for a person."""
        times = "once" if self.retried == 1 else f"{self.retried:,} times"
        return (
            f"{self.model}: failed on processor {self.processor!r} and was tried again {times}; "
            f"the last reason: {self.reason}"
        )


class Failures:
    """Counts failed runs; nothing is forgotten.

    Attributes:
        counts: By model and processor.
        fresh: Keys of counts that changed. Whoever reports them clears it.

    >>> from coinfer.core.request import Request
    >>> from coinfer.machine.span import Span
    >>> run = Execution(0, "a", Span(), "npu", (Request(id=1, model="a", arrival_s=0.0),), 0.0, 1.0)
    >>> failures = Failures()
    >>> failures.note(run, "out of memory")
    >>> failures.note_retry(run)
    >>> str(failures.counts["a", "npu"])
    "a: failed on processor 'npu' and was tried again once; the last reason: out of memory"
    """

    __slots__ = ("counts", "fresh")

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], FailureCount] = {}
        self.fresh: dict[tuple[str, str], None] = {}

    def note(self, execution: Execution, reason: str) -> None:
        """Count an execution that failed."""
        count = self._count(execution)
        count.runs += 1
        count.reason = reason

    def note_retry(self, execution: Execution) -> None:
        """Count that an execution's request, or some of several, are tried again."""
        self._count(execution).retried += 1

    def _count(self, execution: Execution) -> FailureCount:
        key = (execution.model, execution.processor)
        self.fresh[key] = None
        count = self.counts.get(key)
        if count is None:
            count = self.counts[key] = FailureCount(*key)
        return count
