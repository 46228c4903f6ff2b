"""Recorder: turns the dispatcher's events and commands into records and counts.

Both drivers call `observe` after each step of the dispatcher. The time comes with each step, so
the recorder reads no clock and does not know which driver calls it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from coinfer.core.commands import Abandon, Command, Evict, Execution, Load, Reply, Run
from coinfer.core.events import (
    Arrived,
    Event,
    Failed,
    Finished,
    Loaded,
    LoadFailed,
    MemoryGiven,
    MemoryMeasured,
    ProcessorLost,
)
from coinfer.core.request import Outcome, Request
from coinfer.metrics.counts import ModelCounts, ProcessorCounts, RunCounts
from coinfer.metrics.latency import ExactLatencies, LatencySketch
from coinfer.metrics.loads import Loads
from coinfer.metrics.memory_track import MemoryRecords, MemoryTrack
from coinfer.metrics.records import ExecutionOutcome, ExecutionRecord, RequestRecord, Window
from coinfer.metrics.served_by import ServedBy

__all__ = ["Recorder"]

_COMPLETED = Outcome.COMPLETED
_OK = ExecutionOutcome.OK


class _End(NamedTuple):
    """How an execution ended. Records are built from it only when somebody asks for them."""

    execution: Execution
    finished_s: float
    service_s: float | None
    outcome: ExecutionOutcome
    reason: str


class Recorder:
    """Keeps the counts of a measuring window and, if asked to, a record of everything.

    Without records, memory grows with what is in flight and not with the total; latency quantiles
    are then within 0.5 % (`LatencySketch`). With records they are exact. Records cover the whole
    run, also outside the window; counts follow the rules in `coinfer.metrics.counts`.

    Of models with several variants, of which `variants` has the errors by name, it is counted which
    one served.

    Requests and executions that began before the first observed step are not known and ignored.

    >>> from coinfer.core.request import Request
    >>> recorder = Recorder()
    >>> request = Request(id=1, model="a", arrival_s=0.5)
    >>> recorder.observe(Arrived(request), (), 0.5)
    >>> recorder.observe(Finished(7, 0.2), (Reply(request, Outcome.COMPLETED),), 0.75)
    >>> recorder.run_counts(now=1.0).models["a"].latencies.quantile_s(0.5)
    0.25
    """

    def __init__(
        self,
        *,
        window: Window | None = None,
        keep_records: bool = True,
        counts: type[ModelCounts] = ModelCounts,
        variants: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        window = window or Window()
        self._start_s = window.start_s
        self._end_s = window.end_s
        self._keep = keep_records
        self._served_by = ServedBy(variants) if variants else None
        latencies = ExactLatencies if keep_records else LatencySketch
        self._models: dict[str, ModelCounts] = defaultdict(lambda: counts(latencies()))
        self._processors: dict[str, ProcessorCounts] = defaultdict(ProcessorCounts)
        self._fused: dict[str, dict[int, int]] = {}
        # When a request arrives it is decided whether it counts, and these two keep the answer: the
        # window may be closed before the request is answered.
        self._counted: dict[int, ModelCounts] = {}
        self._uncounted: set[int] = set()
        self._unanswered: dict[int, Request] = {}
        self._running: dict[int, Execution] = {}
        self._failed: set[int] = set()
        """Unanswered requests of which a run failed and nothing has started since."""
        self._loads = Loads(keep=keep_records)
        self._memory = MemoryTrack(keep=keep_records)
        self._started: list[Execution] = []
        self._replied: list[tuple[Reply, float]] = []
        self._ended: list[_End] = []

    @property
    def window(self) -> Window:
        """The measuring window as it stands."""
        return Window(start_s=self._start_s, end_s=self._end_s)

    def end_window(self, now: float) -> None:
        """Close the window now, e.g. because the user stopped the run; before draining.

        Does nothing if it has closed before.
        """
        self._end_s = min(self._end_s, now)

    def follow_memory(
        self, memories: Callable[[], Mapping[str, tuple[float, float]]], now: float
    ) -> None:
        """Ask from now on what is loaded, whenever that changes or the process is measured.

        Args:
            memories: Says by memory that has a budget its bytes, and those that are taken.
            now: The moment.
        """
        self._memory.memories = memories
        if memories():
            self._memory.note(now, self.window)

    def observe(self, event: Event, commands: Sequence[Command], now: float) -> None:
        """Take one step of the dispatcher: what happened, what it commanded, and when (seconds).

        Times must not go backwards from one call to the next.
        """
        # This runs for every request and calls are what costs most here: so types are compared, and
        # what nearly always happens is written out.
        if isinstance(event, Finished):
            execution = self._running.pop(event.execution_id, None)
            if execution is None:
                pass  # abandoned before, and what it still returns is ignored
            elif not self._keep and self._start_s <= execution.started_s and now < self._end_s:
                processor = self._processors[execution.processor]
                processor.busy_s += now - execution.started_s
                processor.executions += 1
                if len(execution.requests) > 1:
                    self._count_shared(execution)
            else:
                self._end(execution, now, _OK, event.service_s)
        elif isinstance(event, Arrived):
            request = event.request
            if self._start_s <= request.arrival_s < self._end_s:
                counts = self._models[request.model]
                counts.submit(request)
                self._counted[request.id] = counts
            else:
                self._uncounted.add(request.id)
            if self._keep:
                self._unanswered[request.id] = request
        elif isinstance(event, Failed):
            self._give_up(event.execution_id, now, ExecutionOutcome.FAILED, event.reason)
        elif isinstance(event, ProcessorLost):
            self._lose(event, now)
        elif isinstance(event, Loaded | LoadFailed):
            self._loads.end(event, now, self.window)
            self._memory.note(now, self.window)
        elif isinstance(event, MemoryMeasured):
            self._memory.note(now, self.window, event)
        elif isinstance(event, MemoryGiven):
            self._memory.note(now, self.window)
        for command in commands:
            if type(command) is Run:
                execution = command.execution
                self._running[execution.id] = execution
                if self._failed:
                    self._count_retries(execution)
                if self._served_by is not None:
                    self._served_by.begins(execution)
                if self._keep:
                    self._started.append(execution)
            elif type(command) is Reply:
                request, outcome = command.request, command.outcome
                counted = self._counted.pop(request.id, None)
                if counted is not None:
                    counted.answer(request, outcome, now)
                    if self._served_by is not None:
                        self._count_variant(counted, command)
                elif request.id in self._uncounted:
                    self._uncounted.remove(request.id)
                    counted = self._models[request.model]
                else:
                    continue  # it arrived before the first step that was observed
                if self._failed:
                    self._failed.discard(request.id)
                if outcome is _COMPLETED and self._start_s <= now < self._end_s:
                    counted.served += 1
                if self._keep:
                    del self._unanswered[request.id]
                    self._replied.append((command, now))
            elif isinstance(command, Abandon):
                number, reason = command.execution.id, command.reason
                self._give_up(number, now, ExecutionOutcome.ABANDONED, reason)
            elif isinstance(command, Load):
                self._loads.begin(command, now)
                self._memory.note(now, self.window)
            elif isinstance(command, Evict):
                self._loads.evict(command, now, self.window)
                self._memory.note(now, self.window)

    def run_counts(self, now: float, *, withheld: Mapping[str, int] | None = None) -> RunCounts:
        """Return the counts at `now`. Executions that still run count as busy up to `now`.

        Args:
            now: The moment.
            withheld: What the load did not ask for, which is not seen here; see `RunCounts`.
        """
        # The engine may be observed while this runs: `list` copies each collection in one step.
        processors = {name: replace(counts) for name, counts in list(self._processors.items())}
        for execution in list(self._running.values()):
            counts = processors.setdefault(execution.processor, ProcessorCounts())
            counts.busy_s += self._clipped_s(execution.started_s, now)
        return RunCounts(
            duration_s=self.window.length_s(now),
            models=dict(self._models),
            processors=processors,
            withheld=dict(withheld or {}),
            fused={name: dict(counts) for name, counts in list(self._fused.items())},
            loads=replace(self._loads.counts),
            memory=replace(self._memory.counts),
        )

    def requests(self) -> Iterator[RequestRecord]:
        """Yield the answered requests in order of answer, then by number those without one."""
        if not self._keep:
            return
        runs: dict[int, list[Execution]] = {}
        for execution in self._started:
            for request in execution.requests:
                runs.setdefault(request.id, []).append(execution)
        for (request, outcome, reason), now in self._replied:
            yield _request_record(request, runs.get(request.id, ()), now, outcome, reason)
        for number, request in sorted(self._unanswered.items()):
            yield _request_record(request, runs.get(number, ()))

    def executions(self) -> Iterator[ExecutionRecord]:
        """Yield the executions that ended, in order of end."""
        for execution, finished_s, service_s, outcome, reason in self._ended:
            yield ExecutionRecord(
                id=execution.id,
                processor=execution.processor,
                model=execution.variant,
                span=execution.span,
                batch=execution.batch,
                started_s=execution.started_s,
                finished_s=finished_s,
                expected_s=execution.expected_s,
                service_s=service_s,
                request_ids=tuple(request.id for request in execution.requests),
                outcome=outcome,
                reason=reason,
                sizes=execution.requests[0].sizes,
            )

    def memory(self) -> MemoryRecords:
        """Return what was loaded and evicted, and what was held; nothing without a budget."""
        loads = self._loads
        return MemoryRecords(loads.records(), tuple(loads.evictions), tuple(self._memory.samples))

    def _end(
        self,
        execution: Execution,
        now: float,
        outcome: ExecutionOutcome,
        service_s: float | None = None,
        reason: str = "",
    ) -> None:
        counts, started_s = self._processors[execution.processor], execution.started_s
        start_s = self._start_s
        if start_s <= now < self._end_s:
            counts.busy_s += now - (started_s if started_s > start_s else start_s)
            counts.executions += 1
            if outcome is not _OK:
                counts.failed += 1
            elif len(execution.requests) > 1:
                self._count_shared(execution)
            if started_s < start_s:
                counts.begun_s += start_s - started_s
        else:
            counts.busy_s += self._clipped_s(started_s, now)
        if self._keep:
            self._ended.append(_End(execution, now, service_s, outcome, reason))

    def _count_variant(self, counts: ModelCounts, reply: Reply) -> None:
        assert self._served_by is not None
        name = self._served_by.ends(reply.request)
        if name and reply.outcome is _COMPLETED:
            counts.variants[name] = counts.variants.get(name, 0) + 1

    def _count_shared(self, execution: Execution) -> None:
        served = len(execution.requests)
        if execution.is_fused:
            counts = self._fused.setdefault(execution.variant, {})
            counts[served] = counts.get(served, 0) + 1
            return
        model = self._models.get(execution.model)
        if model is not None:
            model.shared[served] = model.shared.get(served, 0) + 1

    def _give_up(
        self, execution_id: int, now: float, outcome: ExecutionOutcome, reason: str
    ) -> None:
        execution = self._running.pop(execution_id, None)
        if execution is not None:
            self._failed.update([request.id for request in execution.requests])
            self._end(execution, now, outcome, None, reason)

    def _count_retries(self, execution: Execution) -> None:
        for request in execution.requests:
            if request.id in self._failed:
                self._failed.remove(request.id)
                counted = self._counted.get(request.id)
                if counted is not None:
                    counted.retried += 1

    def _lose(self, lost: ProcessorLost, now: float) -> None:
        for execution in [e for e in self._running.values() if e.processor == lost.processor]:
            self._give_up(execution.id, now, ExecutionOutcome.ABANDONED, lost.reason)

    def _clipped_s(self, started_s: float, ended_s: float) -> float:
        low = started_s if started_s > self._start_s else self._start_s
        high = ended_s if ended_s < self._end_s else self._end_s
        return high - low if high > low else 0.0


def _request_record(
    request: Request,
    runs: Sequence[Execution],
    finished_s: float | None = None,
    outcome: Outcome | None = None,
    reason: str = "",
) -> RequestRecord:
    return RequestRecord(
        id=request.id,
        model=request.model,
        due_s=request.arrival_s,
        started_s=runs[0].started_s if runs else None,
        finished_s=finished_s,
        outcome=outcome,
        deadline_s=request.deadline_s,
        priority=request.priority,
        batch=request.batch,
        processors=tuple(execution.processor for execution in runs),
        executions=tuple(execution.id for execution in runs),
        reason=reason,
    )
