"""Failures: counts of the runs that failed, by variant and processor. Judges none: see `health`."""

from __future__ import annotations

from dataclasses import dataclass, field

from coinfer.core.commands import Execution

__all__ = ["FailureCount", "Failures"]


@dataclass(slots=True)
class FailureCount:
    """What failed of one variant on one processor.

    Attributes:
        variant: The variant: of most models the original, which has the model's name.
        processor: The processor.
        reason: Why, the last time.
        runs: Runs that failed.
        retried: Those of them after which a request was tried again. The caller of such a request
            may never see that anything went wrong.
        retried_of: The same by model that they answered: a fused variant answers several.
    """

    variant: str
    processor: str
    reason: str = ""
    runs: int = 0
    retried: int = 0
    retried_of: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return a sentence for a person."""
        times = "once" if self.retried == 1 else f"{self.retried:,} times"
        return (
            f"{self.variant}: failed on processor {self.processor!r} and was tried again {times}; "
            f"the last reason: {self.reason}"
        )


class Failures:
    """Counts failed runs; nothing is forgotten.

    Attributes:
        counts: By variant and processor.
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
        count = self._count(execution)
        count.retried += 1
        for model in {request.model for request in execution.requests}:
            count.retried_of[model] = count.retried_of.get(model, 0) + 1

    def _count(self, execution: Execution) -> FailureCount:
        key = (execution.variant, execution.processor)
        self.fresh[key] = None
        count = self.counts.get(key)
        if count is None:
            count = self.counts[key] = FailureCount(*key)
        return count
