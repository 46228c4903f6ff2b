"""Records: what happened to one request and to one execution. Plain values."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from coinfer.core.request import Outcome
from coinfer.machine.span import Span

__all__ = ["ExecutionOutcome", "ExecutionRecord", "RequestRecord", "Window"]


class ExecutionOutcome(enum.Enum):
    """How an execution ended."""

    OK = "ok"
    FAILED = "failed"
    """It raised; its processor went on."""
    ABANDONED = "abandoned"
    """Nobody waits for it any more: it overran its limit, or its processor was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The measuring window `[start_s, end_s)`, in the driver's time; an infinite end means open.

    >>> Window(start_s=2.0, end_s=12.0).length_s(now=5.0)
    3.0
    """

    start_s: float = 0.0
    end_s: float = math.inf

    def length_s(self, now: float) -> float:
        """Seconds of the window that have passed at `now`; 0 before it starts."""
        return max(0.0, min(self.end_s, now) - self.start_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """The life of one request. Times are in the driver's time, in seconds.

    Attributes:
        id: The request's number.
        model: The model that was asked for.
        due_s: When it was due; latency counts from here.
        started_s: Start of its first execution, also of one that failed; None if it never started.
        finished_s: When it was answered; None while unfinished.
        outcome: How it was answered; None while unfinished.
        deadline_s: When it had to be answered; infinite means no deadline.
        priority: Larger is more urgent.
        batch: Samples in the request.
        processors: Processors of its executions, in order of start.
        executions: Numbers of its executions, in order of start.
        reason: Why it was not completed; empty otherwise.
    """

    id: int
    model: str
    due_s: float
    started_s: float | None
    finished_s: float | None
    outcome: Outcome | None
    deadline_s: float
    priority: int
    batch: int
    processors: tuple[str, ...]
    executions: tuple[int, ...]
    reason: str

    @property
    def latency_s(self) -> float | None:
        """Seconds from due to answered; None unless it was completed."""
        if self.outcome is not Outcome.COMPLETED or self.finished_s is None:
            return None
        return self.finished_s - self.due_s

    @property
    def late(self) -> bool:
        """Whether it was completed after its deadline."""
        return (
            self.outcome is Outcome.COMPLETED
            and self.finished_s is not None
            and self.finished_s > self.deadline_s
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRecord:
    """One execution that ended. Times are in the driver's time, in seconds.

    Attributes:
        id: The execution's number.
        processor: Where it ran.
        model: What it ran.
        span: Which unit subgraphs of the model.
        batch: Samples it ran.
        started_s: When the processor was given to it.
        finished_s: When the processor was taken back.
        expected_s: The duration that the dispatcher expected.
        service_s: Time on the processor alone, from the driver; None if it did not end well.
        request_ids: The requests that it served.
        outcome: How it ended.
        reason: Why it did not end well; empty otherwise.
        sizes: The number of the exact sizes of its requests, per model; 0 if there is one only.
    """

    id: int
    processor: str
    model: str
    span: Span
    batch: int
    started_s: float
    finished_s: float
    expected_s: float
    service_s: float | None
    request_ids: tuple[int, ...]
    outcome: ExecutionOutcome
    reason: str
    sizes: int = 0
