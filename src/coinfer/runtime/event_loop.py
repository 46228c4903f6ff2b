"""Event loop: lets the core handle events and performs the commands that it returns.

Any thread posts; one at a time is the owner (`mailbox`). It decides nothing itself and knows no
file and no profile.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from typing import assert_never

from coinfer.backends.values import Values
from coinfer.core.commands import Abandon, Command, Evict, Execution, Reply, Run, SetTimer
from coinfer.core.dispatcher import Dispatcher
from coinfer.core.events import (
    Arrived,
    Cancelled,
    Closed,
    Event,
    Failed,
    Finished,
    ProcessorLost,
    ProcessorRestored,
    TimerFired,
)
from coinfer.core.request import Outcome, Request
from coinfer.errors import (
    ClosedError,
    CoinferError,
    ConfigurationError,
    DroppedError,
    ExecutionError,
    InvariantError,
    RejectedError,
)
from coinfer.machine.processor import Processor
from coinfer.metrics.observers import Observer, Timekeeper
from coinfer.runtime import clock
from coinfer.runtime.answer_counts import AnswerCounts
from coinfer.runtime.engine_warnings import EngineWarnings
from coinfer.runtime.future import InferenceFuture
from coinfer.runtime.mailbox import Mailbox
from coinfer.runtime.model_store import ModelStore
from coinfer.runtime.span_io import SpanIO
from coinfer.runtime.timer import Timer
from coinfer.runtime.worker import Job, Worker
from coinfer.runtime.worker_pool import WorkerPool

__all__ = ["EventLoop", "Observer"]

_log = logging.getLogger(__name__)

_COMPLETED = Outcome.COMPLETED
_new = tuple.__new__
"""Makes what every request needs: half the price of calling the class of a named tuple."""

_Answer = tuple[int, CoinferError | None]
"""A request's number and how it ends: well, or with an error."""


class EventLoop:
    """Performs what the core commands, and answers requests.

    Attributes:
        post: Gives the core an event, from any thread.
        unanswered: Futures of the requests that are submitted and not yet answered, by id.
        closing: Why no more requests are taken; empty while they are.
        is_stopped: Whether `stop` was called: nothing is started or evicted any more.
        crashed: The bug that ended the engine; None: none did.
        observer: Sees every step of the core.
        timekeeper: Is told the moments between the steps.
        counts: What became of each model's requests.
        worker_pool: The workers.
        timer: Calls back at the moment that the core asked for.
        warnings: What went wrong beside the requests.
    """

    def __init__(
        self,
        core: Dispatcher,
        model_store: ModelStore,
        processors: Sequence[Processor],
        cores: Mapping[str, Collection[int]],
    ) -> None:
        self.unanswered: dict[int, InferenceFuture] = {}
        self.closing = ""
        self.crashed: InvariantError | None = None
        self.observer: Observer | None = None
        self.timekeeper: Timekeeper | None = None
        self.counts: dict[str, AnswerCounts] = defaultdict(AnswerCounts)
        self.warnings = EngineWarnings()
        self.worker_pool = WorkerPool(processors, self, cores, model_store.yielding)
        self._core = core
        self._failures = core.failures
        self._fresh_failures = core.failures.fresh
        self._told_outages: dict[str, int] = {}
        self._model_store = model_store
        self._span_ios = model_store.span_ios
        self._workers = self.worker_pool.workers
        self.is_stopped = False
        self._idle = threading.Condition()
        self._drainers = 0
        self._values: dict[int, tuple[Job, Sequence[Values]]] = {}
        self._mailbox: Mailbox[Event, _Answer] = Mailbox(self._step, self._settle)
        self.post = self._mailbox.post
        self.timer = Timer(lambda: self.post(TimerFired()))

    # for the engine

    def cancel(self, future: InferenceFuture) -> None:
        """Tell the core that nobody wants an answer any more."""
        self.post(Cancelled(future.request.id))

    def check_may_wait(self, what: str) -> None:
        """Refuse what would wait for the thread that calls it.

        Raises:
            ConfigurationError: the calling thread is in a callback of a future.
        """
        if self._mailbox.is_answering:
            raise ConfigurationError(
                f"{what}() in a callback of a future would wait for itself; call it in a thread "
                "of your own, or use submit()"
            )

    def drain(self, timeout_s: float | None) -> bool:
        """Wait until every request is answered; False if that took longer than `timeout_s`."""
        with self._idle:
            self._drainers += 1
            try:
                return self._idle.wait_for(lambda: not self.unanswered, timeout_s)
            finally:
                self._drainers -= 1

    def leave(self) -> None:
        """Take no more requests and answer what waits: the interpreter ends."""
        self.closing = self.closing or "the interpreter is ending"
        self.post(Closed(drop_waiting=True))

    def wait_until_left(self, timeout_s: float) -> None:
        """Wait for what runs, answer what is left then, and end the threads."""
        until_s = clock.now() + timeout_s
        self.drain(timeout_s)
        self.stop()
        self.worker_pool.end(max(until_s - clock.now(), 0.0))

    def stop(self) -> None:
        """Start nothing more, and answer what is left with `ClosedError`."""
        self.is_stopped = True
        self.timer.stop()
        for future in list(self.unanswered.values()):
            self._settle((future.request.id, ClosedError(self.closing)))
        self._model_store.release_all()

    # for workers

    def done(self, job: Job, event: Finished | Failed, parts: Sequence[Values]) -> None:
        """Take a worker's result and post how the execution ended."""
        if self.timekeeper is not None:
            service_s = event.service_s if type(event) is Finished else None
            self.timekeeper.ended(event.execution_id, clock.now(), service_s)
        if job.span_io.is_whole:
            for request, outputs in zip(job.execution.requests, parts, strict=bool(parts)):
                future = self.unanswered.get(request.id)
                if future is not None:
                    future.keep(outputs)
        elif parts:
            self._values[event.execution_id] = (job, parts)
        self.post(event)

    def returned(self, worker: Worker) -> None:
        """Use the processor again: its worker came back from a run that had been given up."""
        if self.worker_pool.replace(worker):
            _log.info("processor %r is used again", worker.processor.name)
            self.post(ProcessorRestored(worker.processor.name))

    def died(self, worker: Worker, reason: str) -> None:
        """Give a dead worker's execution to others and put a fresh worker in its place."""
        _log.warning("processor %r: %s", worker.processor.name, reason)
        self.post(ProcessorLost(worker.processor.name, reason))
        self.returned(worker)

    # the owner's step

    def _step(self, event: Event, answers: deque[_Answer]) -> None:
        """Let the core handle one event and perform its commands; answers are given afterwards."""
        if self.crashed is not None:
            if type(event) is Arrived:
                answers.append((event.request.id, _another(self.crashed)))
            return
        now = clock.now()
        try:
            if self._values:
                self._advance(event)
            commands = self._core.handle(event, now)
            if self.observer is not None:
                self._observe(event, commands, now)
            for command in commands:
                # Nearly all commands are of these two kinds, and `match` costs more.
                if type(command) is Run:
                    self._run(command.execution)
                elif type(command) is Reply:
                    answers.append(self._answer(command, now))
                else:
                    self._perform(command)
            if self._fresh_failures:
                self._tell_failures()
        except BaseException as error:  # a bug of ours, or Ctrl-C: still everybody gets an answer
            if self.is_stopped and isinstance(error, KeyError):
                return  # `stop` answered a request, and forgot it, while this was under way
            self._crash(error, answers)
            if not isinstance(error, Exception):
                raise

    def _advance(self, event: Event) -> None:
        """Give a span's values to its requests, unless the core has given the execution up.

        The owner does this and not the worker: a late result must not take a request back while
        that already runs elsewhere.
        """
        if type(event) is not Finished or event.execution_id not in self._values:
            return
        job, parts = self._values.pop(event.execution_id)
        number, view = event.execution_id, self._core.view
        if not view.is_running(number):
            return
        span_io: SpanIO | None = job.span_io
        split = view.running_fork_of(number)
        if split is not None:
            behind = split.left_behind_by(number)
            span_io = None if behind is None else self._span_ios[job.execution.variant][behind]
        for request, values in zip(job.execution.requests, parts, strict=True):
            future = self.unanswered.get(request.id)
            if future is None:
                continue
            if span_io is None:
                future.add(values)
            else:
                future.advance(values, span_io)

    def _observe(self, event: Event, commands: Sequence[Command], now: float) -> None:
        observer = self.observer
        assert observer is not None
        try:
            observer.observe(event, commands, now)
        except Exception as error:  # noqa: BLE001 - foreign code that only looks on
            self.observer = None
            name = type(observer).__name__
            self.warnings.append(f"observer {name} failed and was detached: {error!r}")

    def _tell_failures(self) -> None:
        """Warn of what failed and is tried again, and of processors that are set aside for it."""
        for key in self._fresh_failures:
            count = self._failures.counts[key]
            _log.debug("%s: failed on processor %r: %s", *key, count.reason)
            if count.retried:
                self.warnings.put(key, str(count))
        self._fresh_failures.clear()
        for outage in self._core.outages:
            if outage.times > self._told_outages.get(outage.processor, 0):
                self._told_outages[outage.processor] = outage.times
                _log.warning("processor %r is set aside: %s", outage.processor, outage.reason)

    def _perform(self, command: Command) -> None:
        match command:
            case SetTimer():
                self.timer.arm(command.at_s)
            case Abandon():
                self._workers[command.execution.processor].retire()
            case Evict():
                self._model_store.note_gone(command.model)
            case Run() | Reply():
                raise AssertionError("performed by the step itself")
            case _:
                assert_never(command)

    def _answer(self, reply: Reply, now: float) -> _Answer:
        request, outcome, reason = reply
        counts = self.counts[request.model]
        if outcome is _COMPLETED:
            counts.completed += 1
            counts.add_latency(now - request.arrival_s)
            if now > request.deadline_s:
                counts.late += 1
            return (request.id, None)
        counts.others[outcome] += 1
        return (request.id, self._error(request, outcome, reason))

    def _run(self, execution: Execution) -> None:
        _, variant, span, processor, requests, _, _ = execution
        session = self._model_store.get(variant, span, processor)
        if self.is_stopped:
            return  # its futures are answered already
        span_io, unanswered = self._span_ios[variant][span], self.unanswered
        if len(requests) == 1:
            values: tuple[Values, ...] = (unanswered[requests[0].id].take(span_io),)
        else:
            values = tuple([unanswered[request.id].take(span_io) for request in requests])
        if self.timekeeper is not None:
            self.timekeeper.handed_over(execution.id, clock.now())
        self._workers[processor].give(_new(Job, (execution, session, span_io, values)))

    def _settle(self, answer: _Answer) -> None:
        """Resolve a future; its callbacks run here, so the core must not be owned."""
        request_id, error = answer
        future = self.unanswered.get(request_id)
        if future is None:
            return
        if self.timekeeper is not None:
            self.timekeeper.answered(request_id, clock.now())
        try:
            future.answer(error)
        finally:  # a callback may raise what no future catches, e.g. SystemExit
            self.unanswered.pop(request_id, None)
            if self._drainers and not self.unanswered:
                with self._idle:
                    self._idle.notify_all()

    def _error(self, request: Request, outcome: Outcome, reason: str) -> CoinferError:
        if self._core.fault is not None and outcome is not Outcome.DROPPED:
            return _another(self._core.fault)
        text = f"request {request.id} of model {request.model!r}: {reason}"
        match outcome:
            case Outcome.DROPPED:
                return DroppedError(text)
            case Outcome.REJECTED:
                leaving = self.closing or request.model not in self._model_store.models
                return ClosedError(text) if leaving else RejectedError(text)
            case Outcome.FAILED:
                return ExecutionError(text)
            case _:
                return ClosedError(text)  # cancelled: its future takes no error any more

    def _crash(self, error: BaseException, answers: deque[_Answer]) -> None:
        """Answer everything and close: the core's state cannot be trusted any more."""
        self.closing = f"the engine failed: {type(error).__name__}: {error}"
        fault = self.crashed = InvariantError(self.closing)
        fault.__cause__ = error
        answers.extend((request_id, _another(fault)) for request_id in list(self.unanswered))
        self._model_store.release_all()


def _another(fault: CoinferError) -> CoinferError:
    """Copy an error: each future raises its own, or threads would write into one traceback."""
    copy = type(fault)(*fault.args)
    copy.__cause__ = fault.__cause__
    return copy
