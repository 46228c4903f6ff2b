"""Event loop: lets the core handle events and performs the commands that it returns.

Any thread posts; one at a time is the owner (`mailbox`). It decides nothing itself and knows no
file and no profile. Longer than other files, because only what is here touches the core.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import assert_never

from coinfer.backends.values import Values
from coinfer.core.commands import Abandon, Command, Evict, Execution, Load, Reply, Run, SetTimer
from coinfer.core.dispatcher import Dispatcher
from coinfer.core.events import (
    Arrived,
    ArrivedTogether,
    Cancelled,
    Closed,
    Event,
    Failed,
    Finished,
    FinishedTogether,
    ProcessorLost,
    ProcessorRestored,
    TimerFired,
)
from coinfer.core.request import Outcome, Request
from coinfer.errors import (
    BackendError,
    ClosedError,
    CoinferError,
    ConfigurationError,
    ExecutionError,
    InvariantError,
)
from coinfer.machine.processor import Processor, twins
from coinfer.metrics.observers import Observer
from coinfer.metrics.served_by import ServedBy
from coinfer.runtime import clock
from coinfer.runtime.answer_counts import AnswerCounts
from coinfer.runtime.answer_errors import another, answer_error
from coinfer.runtime.attention import Attention, Taken
from coinfer.runtime.engine_warnings import EngineWarnings
from coinfer.runtime.failure_notices import FailureNotices
from coinfer.runtime.future import InferenceFuture
from coinfer.runtime.latch import Latch
from coinfer.runtime.loader import Loader
from coinfer.runtime.mailbox import Mailbox
from coinfer.runtime.model_store import ModelStore
from coinfer.runtime.preemption_switch import PreemptionSwitch
from coinfer.runtime.span_io import SpanIO
from coinfer.runtime.timer import Timer
from coinfer.runtime.unanswered import Answer, Unanswered
from coinfer.runtime.watchers import Watchers
from coinfer.runtime.worker import Job, Worker
from coinfer.runtime.worker_pool import WorkerPool

__all__ = ["EventLoop", "Observer", "Posted"]

_log = logging.getLogger(__name__)

_COMPLETED = Outcome.COMPLETED
"""Makes what every request needs: half the price of calling the class of a named tuple."""

_new = tuple.__new__
"""Makes the event of every request: half the price of calling the class of a named tuple."""

FORKED = (
    "this process is a fork of the one in which the engine was made, and has none of its threads; "
    "make an engine in each process, after the fork"
)
"""Why an engine takes no requests in the child of a fork."""

Posted = Event | InferenceFuture | Callable[[deque[Answer]], None]
"""What is posted: an event; a request that arrives, as its future; or what the owner shall do."""

_AT_ONCE = 32
"""Events that are handled one after the other before something starts, whatever else follows."""

_MOMENT_S = 0.2
_GLANCE_S = 0.002
_GIVE_UP_S = 1.0
"""A policy or a callback that never returns must not keep `stop` for longer."""


class EventLoop:
    """Performs what the core commands, and answers requests.

    Attributes:
        ask: As `post`, for requests: threads that attend handle those that they ask together.
        attention: Lets threads that ask perform what is brief themselves.
        post: Gives the owner an event, a new request or something to do, from any thread. It is in
            or it is not, also if a signal handler raises meanwhile.
        unanswered: Futures of the requests that are submitted and not yet answered, by id.
        closing: Why no more requests are taken; empty while they are.
        is_stopped: Whether nothing is started or evicted any more: all is answered.
        idle: The worker that was the last to wait for a job; None: none did yet.
        is_forsaken: Whether this is the child of a fork: no thread is left.
        crashed: The bug that ended the engine; None: none did.
        watchers: Those that only look on.
        counts: What became of each model's requests.
        worker_pool: The workers.
        loader: Loads and evicts what the core asks for.
        preemption: Lets nothing preempt, or again.
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
        self.closing = ""
        self.crashed: InvariantError | None = None
        self.counts: dict[str, AnswerCounts] = defaultdict(AnswerCounts)
        self.warnings = EngineWarnings()
        self.watchers = Watchers(self.warnings)
        self._unanswered = Unanswered(self.watchers)
        self.unanswered = self._unanswered.futures
        self.worker_pool = WorkerPool(processors, self, cores, model_store.yielding)
        self._core = core
        self._running = core.running
        self._twins = twins(processors)
        self._failure_notices = FailureNotices(core, self.warnings)
        self._fresh_failures = self._failure_notices.fresh
        self._model_store = model_store
        self._span_ios = model_store.span_ios
        self._workers = self.worker_pool.workers
        self._yielding = model_store.yielding
        self.is_stopped = self.is_forsaken = self._is_over = False
        self.idle: Worker | None = None
        self._served_by: ServedBy | None = None
        self._stopped = Latch()
        self._values: dict[int, tuple[Job, Sequence[Values]]] = {}
        self._together = 0
        self.loader = Loader(
            model_store,
            self.post_beside,
            self._not_loaded,
            lambda: not self.worker_pool.has_retired,
            partial(self._fail, "the thread that loads and evicts"),
        )
        settle = self._unanswered.settle
        self._mailbox: Mailbox[Posted, Answer, Taken] = Mailbox(self._step, settle, self._ring)
        self.post, self.look = self._mailbox.post, self._mailbox.look
        self.ask = self._mailbox.post_with_others
        self.attention = Attention(self._mailbox, processors, self._yielding, self.done)
        self._lend = self.attention.lend
        self._posted = self._mailbox.posted
        self.preemption = PreemptionSwitch(
            self.worker_pool, self._running, self._step, self._mailbox.post_later
        )
        self.timer = Timer(
            lambda: self.post(TimerFired()),
            self.look,
            partial(self._fail, "the thread that keeps time"),
        )

    # for the engine

    def begin(self) -> None:
        """Keep time from now on.

        Raises:
            BackendError: the system has no thread left.
        """
        try:
            self.timer.start()
        except RuntimeError as error:
            raise BackendError(f"the engine has no thread to keep time: {error}") from error

    def follow_variants(self, errors: Mapping[str, float]) -> None:
        """Count from now on which of these variants serve, those of other models too."""
        if self._served_by is None:
            self._served_by = ServedBy(errors)
        else:
            self._served_by.names.update(errors)

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

    @property
    def pending(self) -> set[int]:
        """The ids of the requests that are posted and not yet answered."""
        posted = [item for item in self._mailbox.items if type(item) is InferenceFuture]
        known = (*posted, *list(self.unanswered.values()))
        return {future.request.id for future in known if not future.done()}

    def call(self, act: Callable[[], None], timeout_s: float | None = None) -> bool:
        """Let the owner do something, and wait for it; False if it was not done in time.

        Raises:
            Exception: what it raises.
        """
        done, errors = Latch(), list[Exception]()

        def perform(_answers: deque[Answer]) -> None:
            try:
                act()
            except Exception as error:  # noqa: BLE001 - raised again in the calling thread
                errors.append(error)
            finally:
                done.set()

        self.post(perform)
        if not done.wait(timeout_s):
            return False
        if errors:
            raise errors[0]
        return True

    def runs(self, variant: str, processors: Collection[str]) -> bool:
        """Tell whether something of a variant runs on processors, or on top of them."""
        over = {*processors, *(name for name, at in self._twins.items() if at in processors)}
        running = list(self._running.values())  # a list first, in one step
        return any(each.variant == variant and each.processor in over for each in running)

    def catch_up(self) -> None:
        """Wait a moment for what was posted before to be handled."""
        if self._mailbox.items and not self.is_stopped:
            self.call(lambda: None, _MOMENT_S)

    def wait_for_loads(self, patience_s: float) -> None:
        """Wait until nothing is loaded any more that there is room for, as at the start."""
        until_s = clock.now() + patience_s
        busy = [True]
        while busy[-1] and not self.is_stopped and clock.now() < until_s:
            self.call(lambda: busy.append(self._core.is_loading))
            if busy[-1]:
                time.sleep(_GLANCE_S)

    def start(self, processor: str) -> None:
        """Have a processor's worker started, if it is not.

        Raises:
            BackendError: the system has no thread left.
        """
        try:
            self.call(partial(self.worker_pool.start, processor))
        except RuntimeError as error:
            raise BackendError(f"processor {processor!r} has no thread: {error}") from error

    def tell(self, event: Event) -> None:
        """Give the core an event and wait until it is handled."""
        self.post(event)
        self.call(lambda: None)

    def note_if_gone(self, model: str, _answers: deque[Answer]) -> None:
        """Let nobody wait for the last request of a model that the core does not know."""
        if model not in self._core.view.models:
            self._model_store.note_gone(model)

    def end_later(self, close: Callable[[], None]) -> None:
        """End the threads once all is answered; returns at once. May be called by the collector."""
        self.closing = self.closing or "the engine was dropped"
        thread = threading.Thread(target=self._end, args=(close,), name="coinfer-end", daemon=True)

        def start(_answers: deque[Answer]) -> None:
            with self._yielding.apart():
                thread.start()

        self._mailbox.post_later(start)

    def _end(self, close: Callable[[], None]) -> None:
        self.post(Closed(drop_waiting=False))
        self.drain(None)
        self.stop()
        if self.worker_pool.join(_GIVE_UP_S) and self.loader.join(_GIVE_UP_S):
            close()

    def drain(self, timeout_s: float | None) -> bool:
        """Wait until every request is answered; False if that took longer than `timeout_s`."""
        drained = Latch()
        try:
            self.post(lambda _answers: self._unanswered.note_drain(drained))
            return drained.wait(timeout_s)
        finally:
            drained.set()  # it is forgotten with the next that is drained

    def drain_model(self, model: str, timeout_s: float | None) -> None:
        """Wait until what was asked of a model is answered, or time is up, or nothing is any more.

        Args:
            model: Its name; nobody may ask it any more.
            timeout_s: Seconds; None: as long as it takes.
        """
        until_s = math.inf if timeout_s is None else clock.now() + timeout_s
        while not self.is_stopped and self.crashed is None and clock.now() < until_s:
            is_handled = self.call(lambda: None, _MOMENT_S)  # what was posted before is known then
            known = list(self.unanswered.values())
            if is_handled and model not in {f.request.model for f in known if not f.done()}:
                return
            time.sleep(_GLANCE_S)

    def leave(self) -> None:
        """Take no more requests and answer what waits: the interpreter ends."""
        self.closing = self.closing or "the interpreter is ending"
        self.post(Closed(drop_waiting=True))

    def wait_until_left(self, timeout_s: float) -> None:
        """Wait for what runs, answer what is left then, and end the threads."""
        until_s = clock.now() + timeout_s
        self.drain(timeout_s)
        self.stop(max(until_s - clock.now(), 0.1))
        self.worker_pool.join(max(until_s - clock.now(), 0.0))
        self.loader.join(max(until_s - clock.now(), 0.0))

    def stop(self, timeout_s: float = _GIVE_UP_S) -> None:
        """Start nothing more, answer what is left with `ClosedError`, and end the timer.

        The workers end after the jobs that they have.
        """
        if not self._stopped.is_set:
            self.post(self._stop)
        if not (self._stopped.wait(timeout_s) and self.drain(timeout_s)):
            # The owner is in a policy, or an answer in a callback, that does not return.
            self._stop(deque())
            self._unanswered.close_silently(self.closing)
        self._model_store.release_all()
        self.timer.stop(timeout_s)

    def forsake(self) -> None:
        """In the child of a fork: there are no threads, so nothing is ever answered."""
        self.closing = FORKED
        self.is_forsaken = True
        self.is_stopped = self.timer.is_stopped = True
        self._stopped.is_set = True
        for item in self._mailbox.items:
            if type(item) is InferenceFuture:
                item.forsake(FORKED)
        self._unanswered.forsake(FORKED)

    def _stop(self, answers: deque[Answer]) -> None:
        self.is_stopped = self._is_over = True
        self.loader.stop()
        answers.extend((number, ClosedError(self.closing)) for number in list(self.unanswered))
        self.worker_pool.stop()
        self._stopped.set()

    def _ring(self) -> None:
        """Have what is posted handled: by a worker that waits, if it may soon run it.

        Otherwise by the timer. Where a worker runs something, also what was posted before is looked
        at only after that. Those that give way to others would decide only when these let them.
        Whoever was rung for and has not looked yet looks after this moment: one is enough.
        """
        if self._yielding.has_begun:
            for each in self._on_top():
                if each.waits and not each.retired and self._ring_for(each):
                    return
        else:
            worker = self.idle
            if worker is not None and worker.waits and not worker.retired:
                if worker.has_no_job() and not self._running:  # mostly
                    worker.ring()
                    return
                if self._ring_for(worker):
                    return
        self.timer.ring()
        if self.timer.is_stopped:  # before, or at this moment: its thread may have looked already
            self.look()

    def _ring_for(self, worker: Worker) -> bool:
        """Ring for a worker that waits; False if it runs something, or ended."""
        has_no_job = worker.has_no_job()
        # It may have a job, or have taken one at this moment: then the core knows.
        if worker.processor.name in [run.processor for run in list(self._running.values())]:
            return False
        if has_no_job:
            worker.ring()
            return True
        return not self.worker_pool.has_ended  # else it may be told to end

    def _on_top(self) -> list[Worker]:
        running = list(self._running.values())
        return self.worker_pool.on_top([run.processor for run in running])

    # for workers

    def done(
        self,
        job: Job,
        event: Finished | Failed,
        parts: Sequence[Values],
        *,
        is_lent: bool = False,
    ) -> None:
        """Take a worker's result and post how the execution ended.

        Args:
            job: What was performed.
            event: How it ended.
            parts: The outputs per request; empty if it failed.
            is_lent: Whether another thread performed it, which handles the event itself.
        """
        if self.watchers.timekeeper is not None:
            service_s = event.service_s if type(event) is Finished else None
            self.watchers.tell("ended", event.execution_id, clock.now(), service_s)
        if job.span_io.is_whole:
            for request, outputs in zip(job.execution.requests, parts, strict=bool(parts)):
                future = self.unanswered.get(request.id)  # it may be answered at this moment
                if future is not None:
                    future.keep(outputs)
        elif parts:
            self._values[event.execution_id] = (job, parts)
        if is_lent:
            self._posted.append(event)
        elif self._yielding.has_begun:
            self._post_from(job.execution.processor, event)
        else:
            self._mailbox.post_here(event)

    def _post_from(self, processor: str, item: Posted) -> None:
        """Post what a processor's worker has to say, from its thread."""
        if self._yielding.has_begun and self._workers[processor].gives_way:
            # Whoever gives way must not decide for others, nor answer: it might be kept from it.
            # Nor must it start threads: they would give way, too.
            self._mailbox.post_later(item)
        else:
            self.post(item)

    def left(self, worker: Worker) -> None:
        """Have a fresh thread take the place of a worker's own, which ends."""
        self._mailbox.post_later(partial(self._start_anew, worker))

    def _start_anew(self, worker: Worker, _answers: deque[Answer]) -> None:
        try:
            self.worker_pool.start_anew(worker)
        except RuntimeError as error:
            self.died(worker, f"its worker has no thread: {error}")

    def returned(self, worker: Worker) -> None:
        """Use the processor again: its worker came back from a run that had been given up."""
        self._post_from(worker.processor.name, partial(self._replace, worker))

    def died(self, worker: Worker, reason: str) -> None:
        """Give a dead worker's execution to others and put a fresh worker in its place."""
        _log.warning("processor %r: %s", worker.processor.name, reason)
        self._post_from(worker.processor.name, ProcessorLost(worker.processor.name, reason))
        self._post_from(worker.processor.name, partial(self._replace, worker))

    def _replace(self, worker: Worker, _answers: deque[Answer]) -> None:
        """Put a fresh worker in the place of one that ended. The owner does it."""
        name = worker.processor.name
        try:
            replaced = self.worker_pool.replace(worker)
        except RuntimeError as error:
            self.warnings.append(f"processor {name!r} stays out of service: {error}")
            return
        if replaced and not (name in self.worker_pool.lowering and self.preemption.reason):
            _log.info("processor %r is used again", name)
            self.post(ProcessorRestored(name))

    # for the loader

    def post_beside(self, event: Event) -> None:
        """Post an event from the loader's thread."""
        if self._yielding.has_begun:
            self._mailbox.post_later(event)  # it may be of those that give way
        else:
            self.post(event)

    def _not_loaded(self, load: Load, reason: str) -> None:
        where = ", ".join(load.processors)
        text = f"model {load.variant!r} could not be loaded on {where} and is tried again: {reason}"
        self.warnings.put(("load", load.place), text)

    # the owner's step

    def _step(self, item: Posted, answers: deque[Answer]) -> None:
        """Let the core handle one event and perform its commands; answers are given afterwards."""
        try:
            if type(item) is InferenceFuture:
                request = item.request
                self.unanswered[request.id] = item
                if self._is_over:
                    answers.append((request.id, self._refusal()))
                    return
                event: Event = _new(Arrived, (request,))
                if self._posted[-1] is item:
                    self._together = 0
                elif self._comes_with_next():
                    event = _new(ArrivedTogether, (request,))
            elif isinstance(item, tuple):
                if self.crashed is not None:
                    return
                event = item
                if self._values:
                    self._advance(event)
                if (
                    self._posted[-1] is not item
                    and type(item) is Finished
                    and self._comes_with_next()
                ):
                    event = _new(FinishedTogether, item)
            else:
                item(answers)  # type: ignore[operator]  # no other type is left
                return
            now = clock.now()
            commands = self._core.handle(event, now)
            if self.watchers.observer is not None:
                self.watchers.observe(event, commands, now)
            for command in commands:
                # Nearly all commands are of these two kinds, and `match` costs more.
                if type(command) is Run:
                    self._run(command.execution)
                elif type(command) is Reply:
                    answers.append(self._answer(command, now))
                else:
                    self._perform(command)
            if self._fresh_failures:
                self._failure_notices.tell()
        except BaseException as error:  # noqa: BLE001 - a bug of ours, or a policy that wants to
            # end the thread; no signal comes here: still everybody gets an answer
            if self.is_stopped and isinstance(error, KeyError):
                return  # `stop` answered a request, and forgot it, while this was under way
            self._crash(error, answers)

    def _comes_with_next(self) -> bool:
        """Tell whether what is handled, and is not the last posted, is followed by another event.

        Then what starts is decided once for all of them, and with all of them known. Callers that
        submit several at once hold the interpreter meanwhile, and so does the owner until all are
        handled: what starts before that begins no sooner.
        """
        self._together += 1
        if self._together < _AT_ONCE:
            following = self._posted[1]
            if type(following) is InferenceFuture or isinstance(following, tuple):
                return True
        self._together = 0
        return False

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

    def _perform(self, command: Command) -> None:
        match command:
            case SetTimer():
                self.timer.arm(command.at_s)
            case Abandon():
                self._workers[command.execution.processor].retire()
            case Evict(model, place):
                if place < 0:
                    self._model_store.note_gone(model)
                else:
                    self.loader.give(command)
            case Load():
                self.loader.give(command)
            case Run() | Reply():
                raise AssertionError("performed by the step itself")
            case _:
                assert_never(command)

    def _answer(self, reply: Reply, now: float) -> Answer:
        request, outcome, reason = reply
        counts = self.counts[request.model]
        if self._served_by is not None:
            served_by = self._served_by.ends(request)
            if served_by and outcome is _COMPLETED:
                counts.variants[served_by] = counts.variants.get(served_by, 0) + 1
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
        if self._served_by is not None:
            self._served_by.begins(execution)
        if len(requests) == 1:
            values: tuple[Values, ...] = (unanswered[requests[0].id].take(span_io),)
        else:
            values = tuple([unanswered[request.id].take(span_io) for request in requests])
        if self.watchers.timekeeper is not None:
            self.watchers.tell("handed_over", execution.id, clock.now())
        job = _new(Job, (execution, session, span_io, values))
        if self._mailbox.lent is None or not self._lend(self._workers[processor], job):
            self._workers[processor].give(job)

    def _error(self, request: Request, outcome: Outcome, reason: str) -> CoinferError:
        if self._core.fault is not None and outcome is not Outcome.DROPPED:
            return another(self._core.fault)
        leaving = self.closing or request.model not in self._model_store.models
        error = answer_error(request, outcome, reason, is_leaving=bool(leaving))
        if isinstance(error, ExecutionError):
            error.is_of_inputs = self.worker_pool.has_refused(request.id)
        return error

    def _refusal(self) -> CoinferError:
        """Return the answer to a request that comes too late."""
        return ClosedError(self.closing) if self.crashed is None else another(self.crashed)

    def _fail(self, thread: str, error: BaseException) -> None:
        """Close: a thread without which nobody can be served has failed."""
        _log.error("%s failed", thread, exc_info=error)
        try:
            self.post(partial(self._crash, error))
        except BaseException:  # noqa: BLE001 - nor can the owner
            self._crash(error, deque())
            self._unanswered.close_silently(self.closing)

    def _crash(self, error: BaseException, answers: deque[Answer]) -> None:
        """Answer everything and close: the core's state cannot be trusted any more."""
        if self.crashed is not None:
            return
        self.closing = f"the engine failed: {type(error).__name__}: {error}"
        fault = self.crashed = InvariantError(self.closing)
        self._is_over = True
        fault.__cause__ = error
        answers.extend((request_id, another(fault)) for request_id in list(self.unanswered))
        self._model_store.release_all()
