"""Counts: what is counted in the measuring window, per model and per processor.

Only this file decides what counts:

- a request counts if it was *due* inside the window, whatever became of it and whenever;
- throughput counts completions *inside* the window, whenever they were due. In a closed loop a
  request is due when another one completes, so the number due in the window says nothing about
  speed, and the answers that arrive after the window took time that the window does not contain;
- busy time of a processor is clipped to the window; an execution counts if it ended inside.

Knows neither events nor how the counts are shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from coinfer.core.request import Outcome, Request
from coinfer.metrics.latency import Latencies
from coinfer.metrics.loads import LoadCounts
from coinfer.metrics.memory_track import MemoryCounts

__all__ = ["ModelCounts", "ProcessorCounts", "RunCounts"]

_INF = math.inf
_COMPLETED = Outcome.COMPLETED


@dataclass(slots=True)
class ModelCounts:
    """Counts of one model's requests. `submitted` is the sum of all outcomes and `unfinished`.

    Attributes:
        latencies: From due to completed, of the requests due in the window.
        submitted: Requests due in the window.
        with_deadline: Those of them that have a deadline.
        hits: Those of them completed in time.
        late: Requests due in the window and completed after their deadline.
        served: Requests completed in the window, whenever they were due.
        others: Answers other than completions to requests due in the window, by outcome.
        retried: How often a request due in the window ran again because a run of it had failed.
        variants: Of a model with several variants, how many of the completed each served.
        shared: Executions that ended well in the window and served several requests, by how many.
    """

    latencies: Latencies
    submitted: int = 0
    with_deadline: int = 0
    hits: int = 0
    late: int = 0
    served: int = 0
    others: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    retried: int = 0
    shared: dict[int, int] = field(default_factory=dict)
    variants: dict[str, int] = field(default_factory=dict)

    @property
    def completed(self) -> int:
        """Requests due in the window that were completed, in it or later."""
        return self.latencies.count

    @property
    def unfinished(self) -> int:
        """Requests due in the window that have no answer yet."""
        return self.submitted - self.completed - sum(self.others.values())

    def submit(self, request: Request) -> None:
        """Count a request that is due in the window."""
        self.submitted += 1
        if request.deadline_s != _INF:
            self.with_deadline += 1

    def answer(self, request: Request, outcome: Outcome, now: float) -> None:
        """Count the answer of a request that was counted by `submit`."""
        if outcome is not _COMPLETED:
            self.others[outcome] += 1
            return
        self.latencies.add(now - request.arrival_s)
        deadline_s = request.deadline_s
        if now > deadline_s:
            self.late += 1
        elif deadline_s != _INF:
            self.hits += 1


@dataclass(slots=True)
class ProcessorCounts:
    """What a processor did inside the window.

    Attributes:
        busy_s: Seconds that it was given to executions, clipped to the window.
        executions: Executions that ended in the window, however they ended.
        failed: Those of them that failed or were abandoned.
        begun_s: Seconds before the window of the one that began before it and ended inside.
    """

    busy_s: float = 0.0
    executions: int = 0
    failed: int = 0
    begun_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCounts:
    """All counts at one moment; the models' are live, so read them before the next step.

    Attributes:
        duration_s: Seconds of the window that had passed.
        models: By model, in order of first appearance.
        processors: By processor, in order of first appearance; running executions included.
        loads: What was loaded and evicted within a memory budget.
        memory: The most that was loaded, and that the process held.
        withheld: By model, requests of the window that were never made because the request that
            they come after was not completed. They are not among the submitted ones.
        fused: By fused variant, its executions that ended well in the window, by how many requests
            they served.
    """

    duration_s: float
    models: Mapping[str, ModelCounts] = field(default_factory=dict)
    processors: Mapping[str, ProcessorCounts] = field(default_factory=dict)
    withheld: Mapping[str, int] = field(default_factory=dict)
    fused: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    loads: LoadCounts = field(default_factory=LoadCounts)
    memory: MemoryCounts = field(default_factory=MemoryCounts)
