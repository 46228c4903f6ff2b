"""Progress: how far a request has come. Changes nothing by itself; the dispatcher's parts do."""

from __future__ import annotations

from coinfer.core.lane import Lane
from coinfer.core.request import Request

__all__ = ["Progress"]


class Progress:
    """How far a request has come: waiting in its lane, or running in an execution; never both.

    While it is split (`coinfer.core.running_fork`) it runs in two.

    Attributes:
        request: The request.
        lane: Where it waits, or waited before it started.
        waits: Whether it waits.
        execution: The execution in which it runs; one of the two if it is split.
        started: Whether any of it has run.
        cancelled: Whether its caller no longer wants the answer.
        failures: Why its executions failed, one reason each.
    """

    __slots__ = ("cancelled", "execution", "failures", "lane", "request", "started", "waits")

    def __init__(self, request: Request, lane: Lane) -> None:
        self.request = request
        self.lane = lane
        self.waits = False
        self.execution: int | None = None
        self.started = False
        self.cancelled = False
        self.failures: tuple[str, ...] = ()
