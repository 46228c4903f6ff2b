"""Facts: the records of a run as columns, with times in seconds since the load began.

The charts are drawn from these columns and from the summary. This file knows no HTML and no chart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from coinfer.core.request import Outcome
from coinfer.metrics.memory_track import NO_MEMORY, MemoryRecords
from coinfer.metrics.records import ExecutionRecord, RequestRecord, Window
from coinfer.metrics.summary import Summary

__all__ = ["OUTCOMES", "Facts", "Floats", "Ints", "gather"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

OUTCOMES = (
    "in time",
    "late",
    *(outcome.value for outcome in Outcome if outcome is not Outcome.COMPLETED),
    "unfinished",
)
"""What can become of a request; a completed one without a deadline is in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a page shows. Times are in seconds since the load began.

    Attributes:
        summary: The figures.
        models: Names; columns refer to them by position.
        processors: Names, likewise.
        shares: `{processor: {model: share of its time}}` in the optimum, where that is known.
        begin_s: Begin of the measuring window.
        end_s: Its end.
        last_s: End of the last thing that happened.
        executions: In order of start.
        run_start_s: Start of each execution.
        run_end_s: End of each execution.
        run_model: Model of each execution.
        run_processor: Processor of each execution.
        requests: By id.
        due_s: When each request was due.
        left_s: When each request left the queue: it started, was answered, or all was over.
        answered_s: When each request was answered; NaN if it was not.
        patience_s: Seconds from due to the deadline of each request; infinite without one.
        model: Model of each request.
        outcome: What became of each request, a position in `OUTCOMES`.
        counted: Whether each request was due in the measuring window.
        memory: What was loaded and evicted, and what the process held, in the driver's time.
        origin_s: The moment, in that time, at which the load began.
    """

    summary: Summary
    models: tuple[str, ...]
    processors: tuple[str, ...]
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    begin_s: float
    end_s: float
    last_s: float
    executions: Sequence[ExecutionRecord]
    run_start_s: Floats
    run_end_s: Floats
    run_model: Ints
    run_processor: Ints
    requests: Mapping[int, RequestRecord]
    due_s: Floats
    left_s: Floats
    answered_s: Floats
    patience_s: Floats
    model: Ints
    outcome: Ints
    counted: npt.NDArray[np.bool_]
    memory: MemoryRecords = NO_MEMORY
    origin_s: float = 0.0

    @property
    def window_s(self) -> float:
        """Length of the measuring window."""
        return self.end_s - self.begin_s

    @property
    def completed(self) -> npt.NDArray[np.bool_]:
        """Whether each request was answered with a result, in time or late."""
        return self.outcome_is("in time") | self.outcome_is("late")

    def of_model(self, name: str) -> npt.NDArray[np.bool_]:
        """Whether each request is one of this model."""
        chosen: npt.NDArray[np.bool_] = self.model == self.models.index(name)
        return chosen

    def outcome_is(self, name: str) -> npt.NDArray[np.bool_]:
        """Tell for each request whether this became of it."""
        chosen: npt.NDArray[np.bool_] = self.outcome == OUTCOMES.index(name)
        return chosen


def gather(
    summary: Summary,
    requests: Iterable[RequestRecord],
    executions: Iterable[ExecutionRecord],
    window: Window,
    *,
    origin_s: float = 0.0,
    shares: Mapping[str, Mapping[str, float]] | None = None,
    memory: MemoryRecords = NO_MEMORY,
) -> Facts:
    """Put records into columns.

    Args:
        summary: The figures of the same run.
        requests: `Recorder.requests()`.
        executions: `Recorder.executions()`.
        window: `Recorder.window`.
        origin_s: The moment, in the driver's time, at which the load began.
        shares: The optimum's shares of each processor's time.
        memory: `Recorder.memory()`.
    """
    runs = sorted(executions, key=lambda record: (record.started_s, record.id))
    asked = list(requests)
    others = [*(r.model for r in asked), *(r.model for r in runs), *(r.model for r in memory.loads)]
    models = tuple(dict.fromkeys([*summary.models, *others]))
    processors = tuple(dict.fromkeys([*summary.processors, *(r.processor for r in runs)]))
    begin_s = window.start_s - origin_s
    end_s = begin_s + summary.duration_s
    counted_until_s = end_s if math.isfinite(window.end_s) else math.inf
    run_end_s = _floats(r.finished_s - origin_s for r in runs)
    due_s = _floats(r.due_s - origin_s for r in asked)
    answered_s = _floats(math.nan if r.finished_s is None else r.finished_s for r in asked)
    answered_s -= origin_s
    last_s = _latest(end_s, run_end_s, due_s, answered_s)
    return Facts(
        summary=summary,
        models=models,
        processors=processors,
        shares=shares or {},
        begin_s=begin_s,
        end_s=end_s,
        last_s=last_s,
        executions=runs,
        run_start_s=_floats(r.started_s - origin_s for r in runs),
        run_end_s=run_end_s,
        run_model=_positions(models, (r.model for r in runs)),
        run_processor=_positions(processors, (r.processor for r in runs)),
        requests={r.id: r for r in asked},
        due_s=due_s,
        left_s=_floats(_left_s(r, last_s + origin_s) - origin_s for r in asked),
        answered_s=answered_s,
        patience_s=_floats(r.deadline_s - r.due_s for r in asked),
        model=_positions(models, (r.model for r in asked)),
        outcome=_positions(OUTCOMES, map(_became, asked)),
        counted=(due_s >= begin_s) & (due_s < counted_until_s),
        memory=memory,
        origin_s=origin_s,
    )


def _floats(values: Iterable[float]) -> Floats:
    return np.fromiter(values, np.float64)


def _positions(names: Sequence[str], found: Iterable[str]) -> Ints:
    position = {name: at for at, name in enumerate(names)}
    return np.fromiter((position[name] for name in found), np.int64)


def _latest(end_s: float, *columns: Floats) -> float:
    return max([end_s, *(float(np.nanmax(c)) for c in columns if np.isfinite(c).any())])


def _left_s(record: RequestRecord, last_s: float) -> float:
    left_s = record.finished_s if record.started_s is None else record.started_s
    return max(record.due_s, last_s if left_s is None else left_s)


def _became(record: RequestRecord) -> str:
    if record.outcome is None:
        return "unfinished"
    if record.outcome is Outcome.COMPLETED:
        return "late" if record.late else "in time"
    return str(record.outcome.value)
