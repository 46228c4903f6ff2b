"""Dispatcher: takes one event and the time, returns commands. The whole life of a request is here.

It reads no clock, starts no thread, opens no file and draws no random number: the engine and the
simulator drive the same object. One caller at a time; the drivers see to that.

The rules, in the order in which they apply after every event:
 1. the event changes progress: arrived, finished, failed, cancelled, processor lost or back, ...
 2. droppable requests whose deadline passed before they started are dropped
 3. executions that overran their limit are abandoned and their processor is set aside; one that was
    set aside for its failures is tried again when it is time
 4. if something waits and some processor is idle, the policy decides; each decision is checked
 5. what still waits and would be late by waiting preempts, if there are express processors
 6. the earliest moment to look again is armed as the timer
A request that fails is retried on other processors, `retries` times, and never on one it failed on;
it goes on from the last unit boundary that it reached. While two branches of its model run at the
same time, it runs in two executions (`coinfer.core.split`). A processor on which run after run
fails is set aside, unless it is the last one or some model would have no way to its end without it:
no other could then take its place. If a model needs one that is set aside, because another was lost
or the model is new, all that are set aside are tried again at once. Failures of requests that fail
elsewhere too are not held against a processor: one that was set aside for them comes back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from coinfer.core.commands import Abandon, Command, Evict, Execution, Reply, Run, SetTimer
from coinfer.core.estimates import learn
from coinfer.core.events import (
    Arrived,
    Cancelled,
    Closed,
    Event,
    Failed,
    Finished,
    ModelLoaded,
    ModelUnloaded,
    ProcessorLost,
    ProcessorRestored,
    TimerFired,
)
from coinfer.core.health import Health, Outage
from coinfer.core.lane import Lane
from coinfer.core.policy import (
    DirectPolicy,
    Drop,
    HeadPolicy,
    Policy,
    SortingPolicy,
    Start,
    StartFork,
    WaitUntil,
)
from coinfer.core.preemption import Preemption
from coinfer.core.request import OnLate, Outcome, Request
from coinfer.core.split import Split, check_fork
from coinfer.core.state import Progress, State
from coinfer.core.timers import Timers
from coinfer.core.view import View
from coinfer.errors import InvariantError, PolicyError
from coinfer.processor import Processor
from coinfer.profiles import Span

__all__ = ["Dispatcher", "Limits"]

_CANCELLED = "cancelled by the caller"

_INF = math.inf
_DROP = OnLate.DROP
_COMPLETED = Outcome.COMPLETED

_new = tuple.__new__
"""Makes the commands of every request: half the price of calling the class of a named tuple."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the dispatcher enforces whatever the policy wants.

    Attributes:
        max_waiting: Requests that may wait; one more is rejected. None: no limit.
        retries: How often a failed request is tried again on another processor.
        hang_factor: An execution that takes this many times its estimate is given up ...
        hang_min_s: ... but not before this many seconds. Infinite: never.
        set_aside_after: Failures in a row that set a processor aside. Infinite: none do.
        probe_s: Seconds after which such a processor is tried again; if its next run fails too, it
            is set aside for twice as long, up to ten minutes.
    """

    max_waiting: int | None = None
    retries: int = 1
    hang_factor: float = 20.0
    hang_min_s: float = 10.0
    set_aside_after: float = 3
    probe_s: float = 30.0


class Dispatcher:
    """The scheduling core of one engine or one simulation.

    >>> from coinfer.policies import make_policy
    >>> from coinfer.profiles import Profile
    >>> cpu = Processor(name="cpu0", backend="null", units=frozenset({"core0"}))
    >>> core = Dispatcher([cpu], make_policy("fcfs"))
    >>> core.handle(ModelLoaded("m", 1, Profile.from_seconds({"m": {"cpu0": 0.01}})), 0.0)
    []
    >>> run, timer = core.handle(Arrived(Request(id=0, model="m", arrival_s=0.0)), 0.0)
    >>> run.execution.processor
    'cpu0'
    >>> core.handle(Finished(run.execution.id, 0.01), 0.01)[0].outcome
    <Outcome.COMPLETED: 'completed'>
    """

    def __init__(
        self, processors: Sequence[Processor], policy: Policy, *, limits: Limits = Limits()
    ) -> None:
        self.policy = policy
        self.limits = limits
        self.fault: PolicyError | None = None
        # Asked for once: it is a question per request otherwise.
        self._rank = policy.rank
        self._place = policy.place if isinstance(policy, DirectPolicy) else None
        self._pick = policy.pick if isinstance(policy, HeadPolicy) else None
        self._queue = policy.queue if isinstance(policy, SortingPolicy) else None
        self._state = State(processors)
        self._view = View(self._state)
        has_express = self._state.express is not None
        self._preemption = Preemption(self._state, self._view) if has_express else None
        self._timers = Timers()
        self._health = Health(limits.set_aside_after, limits.probe_s)
        self._hang_min_s = limits.hang_min_s
        self._max_waiting = _INF if limits.max_waiting is None else limits.max_waiting
        self._execution_ids = count()
        self._closed = ""
        self._now = -math.inf
        self._commands: list[Command] = []
        self._handlers: dict[type, Callable[[Any], None]] = {
            Arrived: self._arrived,
            Finished: self._finished,
            Failed: self._failed,
            Cancelled: self._cancelled,
            TimerFired: self._timer_fired,
            ProcessorLost: self._processor_lost,
            ProcessorRestored: self._processor_restored,
            ModelLoaded: self._model_loaded,
            ModelUnloaded: self._model_unloaded,
            Closed: self._close,
        }

    @property
    def view(self) -> View:
        """The read-only sight of the state that policies get."""
        return self._view

    @property
    def n_unanswered(self) -> int:
        """Requests that have not been answered yet, waiting or running."""
        return len(self._state.requests)

    @property
    def outages(self) -> list[Outage]:
        """Which processors were ever taken out of service, for failures or because one died."""
        express = self._state.express
        in_service = [*self._state.in_service, *(express.in_service if express else ())]
        return self._health.outages(in_service)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take an event at a moment; return what is to be done, in order.

        Args:
            event: What happened.
            now: The driver's time in seconds. Time does not run backwards: an earlier moment
                than the last one is taken as the last one.

        Returns:
            Commands for the driver to perform in the given order.
        """
        if now < self._now:
            now = self._now
        self._now = self._view.now = now
        commands: list[Command] = []
        self._commands = commands
        self._handlers[type(event)](event)
        state, timers = self._state, self._timers
        if timers.next_s <= now:
            self._look_again(now)
        waiting = state.waiting
        if waiting and state.used != state.all_units:
            self._decide()
        if waiting:
            if self._preemption is not None:
                self._preempt(self._preemption)
            if timers.deadlines:
                timers.look_at_deadlines(waiting)
        if timers.next_s < timers.armed_s:
            commands.append(SetTimer(timers.arm()))
        return commands

    def check(self) -> None:
        """Verify the invariants of the state.

        Raises:
            InvariantError: the state contradicts itself; the message says where.
        """
        try:
            self._state.check()
        except AssertionError as error:
            raise InvariantError(f"the dispatcher's state is inconsistent: {error}") from error

    # 1. events

    def _arrived(self, event: Arrived) -> None:
        request = event.request
        state = self._state
        waiting = state.waiting
        if (
            self._closed
            or state.leaving
            or request.model not in state.units
            or len(waiting) >= self._max_waiting
        ):
            refusal = self._refusal(request.model)
            if refusal:
                self._commands.append(Reply(request, Outcome.REJECTED, refusal))
                return
        progress = state.add(request, 0 if self._queue is None else self._queue_of(request))
        if not waiting and self._place is not None and self._start_at_once(progress):
            return
        self._wait(progress)
        if request.on_late is _DROP and request.deadline_s < _INF:
            if request.deadline_s <= self._now:
                self._expire(request.id)
            else:
                self._timers.add_deadline(request, waiting)

    def _refusal(self, model: str) -> str:
        if self._closed:
            return self._closed
        if model not in self._state.units or model in self._state.leaving:
            return f"model {model!r} is not loaded"
        limit = self.limits.max_waiting
        if limit is not None and len(self._state.waiting) >= limit:
            return f"{limit} requests wait already, the admission limit"
        return ""

    def _queue_of(self, request: Request) -> int:
        assert self._queue is not None
        try:
            return self._queue(request)
        except Exception as error:  # noqa: BLE001 - third-party code; all must be answered
            self._blame_policy(error)
            return 0

    def _start_at_once(self, progress: Progress) -> bool:
        """Start a lone request without queueing it, if the policy places it directly."""
        state, lane, request = self._state, progress.lane, progress.request
        if state.used == state.all_units or request.deadline_s <= self._now:
            return False
        assert self._place is not None
        try:
            processor = self._place(self._view, lane, request)
        except Exception as error:  # noqa: BLE001 - third-party code; all must be answered
            self._blame_policy(error)
            return False
        seconds = lane.seconds.get(processor) if processor is not None else None
        if (
            processor is None
            or seconds is None
            or processor in lane.excluded
            or processor not in state.idle()
        ):
            return False
        span = lane.rest
        if lane.routes is not None:
            span, _, seconds = lane.routes.step(lane.key.position, processor)
        self._launch(processor, (request,), (progress,), span, seconds)
        return True

    def _finished(self, event: Finished) -> None:
        state = self._state
        execution = state.running.get(event.execution_id)
        if execution is None:
            return  # abandoned before: its requests are answered or run elsewhere
        model, span, requests = execution.model, execution.span, execution.requests
        batch = requests[0].batch if len(requests) == 1 else execution.batch
        processor, service_s = execution.processor, event.service_s
        if state.swaps.costs:
            service_s = state.own_s(execution, service_s)
        row = state.requests[requests[0].id].lane.row if len(requests) == 1 else None
        if state.express is not None:
            state.learn(execution, batch, service_s, self._now)
        elif row is not None:  # nearly always; it is what `observe` would have to look up
            learn(row, processor, service_s)
        else:
            state.estimates.observe(model, processor, span, batch, service_s)
        state.release(execution, self._now)
        if self._health.records:
            self._health.succeeded(processor)
        last = state.units[model] - 1
        if last:
            state.observed(execution, batch)
        if state.splits and execution.id in state.splits:
            self._end_side(execution.id, well=True)
            return
        done = span.last >= last
        for request in requests:
            progress = state.requests[request.id]
            if done:
                self._reply(progress, _COMPLETED)
            else:
                progress.execution = None
                self._go_on(progress, span.last + 1)

    def _failed(self, event: Failed) -> None:
        execution = self._state.running.get(event.execution_id)
        if execution is None:
            return
        # Where the requests failed before: then it is probably not the processor's fault.
        before = [self._state.requests[r.id].lane.key.excluded for r in execution.requests]
        self._fail(execution, event.reason)
        for name in frozenset[str]().union(*before):
            if self._health.excused(name):
                self._state.put_back(name)
                self._timers.probe_s = self._health.next_s
        if not all(before) and not self._is_needed(execution.processor):
            self._hold_against(execution.processor, event.reason)

    def _is_needed(self, processor: str) -> bool:
        """Tell whether no other processors in service could take a processor's place."""
        in_service = self._state.in_service
        others = in_service.keys() - {processor}
        return not others or self._state.serve_more(in_service, others)

    def _hold_against(self, processor: str, reason: str) -> None:
        if self._health.failed(processor, self._now):
            self._take_out(processor, "set aside", reason)
            self._timers.probe(self._health.next_s)

    def _cancelled(self, event: Cancelled) -> None:
        progress = self._state.requests.get(event.request_id)
        if progress is None:
            return
        progress.cancelled = True  # a running one stops at its next span boundary
        if progress.waits:
            self._answer_waiting(progress, Outcome.CANCELLED, _CANCELLED)

    def _timer_fired(self, _event: TimerFired) -> None:
        self._timers.fired()

    def _processor_lost(self, event: ProcessorLost) -> None:
        self._health.forget(event.processor)  # whoever lost it brings it back
        self._take_out(event.processor, event.reason, event.reason)

    def _take_out(self, processor: str, reason: str, cause: str) -> None:
        state = self._state
        if not state.take_out(processor):
            return
        self._health.note_outage(processor, cause)
        self._bring_back_needed()
        for execution in [e for e in state.running.values() if e.processor == processor]:
            self._fail(execution, reason)
        self._give_up_stranded()

    def _bring_back_needed(self) -> None:
        """Try those set aside if some model needs them: better a doubtful processor than none."""
        state, aside = self._state, self._health.aside()
        if not aside:
            return
        in_service = state.in_service
        if not in_service or state.serve_more({*in_service, *aside}, in_service):
            self._bring_back(math.inf)

    def _bring_back(self, now: float) -> None:
        """Try the processors again that were set aside until a moment."""
        for name in self._health.due(now):
            self._state.put_back(name)
        self._timers.probe_s = self._health.next_s

    def _processor_restored(self, event: ProcessorRestored) -> None:
        self._health.forget(event.processor)
        self._state.put_back(event.processor)

    def _model_loaded(self, event: ModelLoaded) -> None:
        self._state.add_model(*event)
        self._bring_back_needed()
        self._give_up_stranded()

    def _model_unloaded(self, event: ModelUnloaded) -> None:
        state = self._state
        if event.model not in state.units:
            return
        everyone = state.requests.values()
        state.leaving[event.model] = sum(p.request.model == event.model for p in everyone)
        reason = f"model {event.model!r} is being unloaded"
        for progress in self._not_started():
            if progress.request.model == event.model:
                self._answer_waiting(progress, Outcome.REJECTED, reason)
        if state.leaving.get(event.model) == 0:
            self._evict(event.model)

    def _close(self, event: Closed) -> None:
        self._closed = self._closed or "the engine is stopping"
        if event.drop_waiting:
            for progress in self._not_started():
                self._answer_waiting(progress, Outcome.REJECTED, self._closed)

    # 2. deadlines, 3. watchdog

    def _look_again(self, now: float) -> None:
        timers = self._timers
        for request_id in timers.pop_expired(now):
            self._expire(request_id)
        if timers.watchdog_s <= now:
            self._watch()
        if timers.probe_s <= now:
            self._bring_back(now)
        if timers.policy_s <= now:
            timers.policy_s = math.inf
        if timers.preempt_s <= now:
            timers.preempt_s = math.inf
        timers.settle(self._state.waiting)

    def _expire(self, request_id: int) -> None:
        progress = self._state.requests.get(request_id)
        if progress is not None and not progress.started:  # so it waits
            late = "its deadline passed before it could start"
            self._answer_waiting(progress, Outcome.DROPPED, late)

    def _give_up_at(self, execution: Execution) -> float:
        patience_s = self.limits.hang_factor * execution.expected_s
        delay_s = self._state.delay_s(execution, self._now)
        return execution.started_s + max(self.limits.hang_min_s, patience_s) + delay_s

    def _watch(self) -> None:
        self._timers.watchdog_s = math.inf
        for execution in list(self._state.running.values()):
            if self._give_up_at(execution) > self._now:
                continue
            waited_s = self._now - execution.started_s
            reason = f"no result after {waited_s:.3g} s, expected {execution.expected_s:.3g} s"
            self._commands.append(Abandon(execution, reason))
            self._processor_lost(ProcessorLost(execution.processor, reason))
        for execution in self._state.running.values():
            self._timers.watch(self._give_up_at(execution))

    # 4. decisions

    def _decide(self) -> None:
        state = self._state
        self._timers.policy_s = math.inf  # what the last decision wanted is out of date
        try:
            if self._pick is not None:
                self._start_heads(self._pick)
                return
            # Of any type: what a policy yields is checked here, and not believed to be a decision.
            decisions: Iterable[object] = self.policy.decide(self._view)
            for decision in decisions:
                if type(decision) is Start:  # nearly always; a `match` costs more
                    self._start(decision)
                else:
                    self._apply(decision)
                if not state.waiting or state.used == state.all_units:
                    return  # nothing is left to decide: do not make the policy find that out
        except Exception as error:  # noqa: BLE001 - third-party code; all waiting must be answered
            self._blame_policy(error)

    def _blame_policy(self, error: Exception) -> None:
        """Answer all that waits and take no more: the policy cannot be trusted any longer."""
        name = type(self.policy).__name__
        self.fault = PolicyError(f"policy {name} failed: {type(error).__name__}: {error}")
        self.fault.__cause__ = error
        self._closed = str(self.fault)
        for progress in self._state.clear_waiting():
            self._reply(progress, Outcome.FAILED, self._closed)

    def _start_heads(self, pick: Callable[[View], tuple[Lane, str] | None]) -> None:
        """Start what the policy picks, one by one; checked as any other decision."""
        state = self._state
        while state.waiting and state.used != state.all_units:
            picked = pick(self._view)
            if picked is None:
                return
            lane, processor = picked
            request = lane.head
            seconds = lane.seconds.get(processor)
            can_start = processor in state.idle() and processor not in lane.excluded
            if can_start and seconds is not None and lane.routes is None:
                progress = state.requests[request.id]
                state.dequeue(progress)
                self._launch(processor, (request,), (progress,), lane.rest, seconds)
            else:
                self._start_any(Start(processor, (request,)))

    def _apply(self, decision: object) -> None:
        match decision:
            case Start():
                self._start(decision)
            case StartFork():
                self._start_fork(decision)
            case Drop(request, reason):
                progress = self._waiting(request)
                if request.on_late is not OnLate.DROP:
                    raise PolicyError(f"request {request.id} must not be dropped")
                self._answer_waiting(progress, Outcome.DROPPED, reason)
            case WaitUntil(at_s):
                if not at_s > self._now:  # would fire at once, for ever; also refuses NaN
                    raise PolicyError(f"cannot wait until {at_s}: it is {self._now} now")
                self._timers.wake(at_s)
            case _:
                raise PolicyError(
                    f"{decision!r} is no decision; yield Start, StartFork, Drop or WaitUntil"
                )

    def _start(self, decision: Start) -> None:
        processor, requests, last = decision
        state = self._state
        if len(requests) == 1 and last is None:
            progress = state.requests.get(requests[0].id)
            if progress is not None and progress.waits and progress.lane.routes is None:
                lane = progress.lane
                seconds = lane.seconds.get(processor)
                can_start = processor in state.idle() and processor not in lane.excluded
                if can_start and seconds is not None:
                    state.dequeue(progress)
                    self._launch(processor, requests, (progress,), lane.rest, seconds)
                    return
        self._start_any(decision)

    def _start_any(self, decision: Start) -> None:
        """Start several requests together or a span of a model, or say why that cannot be."""
        processor, requests, last = decision
        if processor not in self._state.idle():
            raise PolicyError(f"processor {processor!r} is not idle")
        everyone = self._together(requests)
        for progress in everyone:
            if processor in progress.lane.excluded:
                raise PolicyError(f"request {progress.request.id} failed on {processor!r} before")
        lane, batch = everyone[0].lane, sum(request.batch for request in requests)
        span, routes = lane.rest, lane.routes
        if last is not None:
            span = Span(span.first, last)
        elif routes is not None and processor in lane.seconds:
            span = routes.step(span.first, processor).span
        if routes is not None and not routes.leads_on(span):
            raise PolicyError(f"no processor in service can run {lane.model!r} after {span}")
        seconds = self._state.estimates.row(lane.model, span, batch).get(processor)
        if seconds is None:
            raise PolicyError(f"processor {processor!r} cannot run {span} of {lane.model!r}")
        for progress in everyone:
            self._state.dequeue(progress)
        self._launch(processor, requests, everyone, span, seconds)

    def _launch(
        self,
        processor: str,
        requests: tuple[Request, ...],
        everyone: Sequence[Progress],
        span: Span,
        seconds: float,
    ) -> None:
        number, now, model = next(self._execution_ids), self._now, requests[0].model
        swaps = self._state.swaps
        if swaps.costs:
            seconds += swaps.cost_s(processor, model)
        fields = (number, model, span, processor, requests, now, seconds)
        execution = _new(Execution, fields)
        for progress in everyone:
            progress.execution = number
            progress.started = True
        self._state.occupy(execution)
        # The watchdog looks at the oldest execution first: a new one seldom needs to be compared.
        if now + self._hang_min_s < self._timers.watchdog_s:
            self._timers.watch(self._give_up_at(execution))
        self._commands.append(_new(Run, (execution,)))

    def _start_fork(self, decision: StartFork) -> None:
        progress, state = self._waiting(decision.request), self._state
        sides = check_fork(state, progress.lane, decision)
        state.dequeue(progress)
        split = Split(progress, decision.fork)
        for span, processor, seconds in sides:
            self._launch(processor, (progress.request,), (progress,), span, seconds)
            state.splits[split.begin()] = split

    def _together(self, requests: Sequence[Request]) -> list[Progress]:
        everyone = [self._waiting(request) for request in requests]
        if not everyone:
            raise PolicyError("an execution needs a request")
        if len({progress.request.id for progress in everyone}) < len(everyone):
            raise PolicyError("an execution takes each request once")
        if len({progress.lane.key[:2] for progress in everyone}) > 1:
            raise PolicyError("one execution takes requests of one model at one position only")
        return everyone

    # 5. preemption

    def _preempt(self, preemption: Preemption) -> None:
        for progress, (span, processor, seconds) in preemption.starts():
            self._state.dequeue(progress)
            self._launch(processor, (progress.request,), (progress,), span, seconds)
        self._timers.preempt(preemption.again_s)

    # shared steps

    def _waiting(self, request: Request) -> Progress:
        progress = self._state.requests.get(request.id)
        if progress is None or not progress.waits:
            raise PolicyError(f"request {request.id} does not wait")
        return progress

    def _not_started(self) -> list[Progress]:
        state = self._state
        everyone = (state.requests[request_id] for request_id in state.waiting)
        return [progress for progress in everyone if not progress.started]

    def _end_side(self, number: int, *, well: bool) -> None:
        """Take note of the end of a side of a fork; after the other one the request goes on."""
        split = self._state.splits.pop(number)
        split.end(number, well=well)
        progress = split.progress
        if progress.execution is not None:
            return
        if split.failed:
            self._try_again(progress, split.reached)
        elif split.reached >= self._state.units[progress.request.model]:
            self._reply(progress, Outcome.COMPLETED)
        else:
            self._go_on(progress, split.reached)

    def _go_on(self, progress: Progress, position: int) -> None:
        """Let a request wait for what comes next, unless nobody wants it any more."""
        if progress.cancelled:
            self._reply(progress, Outcome.CANCELLED, _CANCELLED)
        else:
            progress.lane = self._state.lane(progress.lane.key._replace(position=position))
            self._wait(progress)

    def _try_again(self, progress: Progress, position: int) -> None:
        """Let a request wait for another processor after a failure, unless it failed too often."""
        if progress.cancelled or len(progress.failures) <= self.limits.retries:
            further = self._state.lane(progress.lane.key._replace(position=position))
            if not self._state.has_runner(further):  # what was done may be done again elsewhere
                position = progress.lane.key.position
            self._go_on(progress, position)
        else:
            self._reply(progress, Outcome.FAILED, "; then ".join(progress.failures))

    def _wait(self, progress: Progress) -> None:
        state, lane, request = self._state, progress.lane, progress.request
        if not lane.is_served and not state.has_runner(lane):
            self._give_up(progress)
            return
        try:
            state.enqueue(progress, self._rank(request))
            if self._preemption is not None:
                self._preemption.note(request)
        except Exception as error:  # noqa: BLE001 - third-party code, or its ranks do not compare
            self._blame_policy(error)
            self._reply(progress, Outcome.FAILED, self._closed)

    def _fail(self, execution: Execution, reason: str) -> None:
        self._state.release(execution, self._now)
        failure = f"model {execution.model!r} on processor {execution.processor!r}: {reason}"
        place = {execution.processor}
        if self._state.express is not None and execution.processor in self._state.express.twins:
            place.add(self._state.express.twins[execution.processor])  # the same session
        for request in execution.requests:
            progress = self._state.requests[request.id]
            progress.execution = None
            key = progress.lane.key
            excluded = key.excluded | place
            progress.lane = self._state.lane(key._replace(excluded=excluded))
            split = self._state.splits.get(execution.id)
            if split is not None and split.failed:  # the two sides are one attempt
                progress.failures = (*progress.failures[:-1], f"{progress.failures[-1]}; {failure}")
            else:
                progress.failures = (*progress.failures, failure)
            if split is not None:
                self._end_side(execution.id, well=False)
            else:
                self._try_again(progress, key.position)

    def _give_up_stranded(self) -> None:
        state = self._state
        for lane in list(state.lanes):
            if not state.has_runner(lane):
                for request in list(lane.in_order()):
                    self._give_up(state.requests[request.id])

    def _give_up(self, progress: Progress) -> None:
        if progress.waits:
            self._state.dequeue(progress)
        why = "; then ".join(progress.failures)
        nobody = f"no processor in service can run model {progress.request.model!r}"
        self._reply(progress, Outcome.FAILED, f"{why}; {nobody}" if why else nobody)

    def _answer_waiting(self, progress: Progress, outcome: Outcome, reason: str) -> None:
        self._state.dequeue(progress)
        self._reply(progress, outcome, reason)

    def _reply(self, progress: Progress, outcome: Outcome, reason: str = "") -> None:
        request, state = progress.request, self._state
        del state.requests[request.id]
        self._commands.append(_new(Reply, (request, outcome, reason)))
        leaving = state.leaving
        if leaving and request.model in leaving:
            leaving[request.model] -= 1
            if not leaving[request.model]:
                self._evict(request.model)

    def _evict(self, model: str) -> None:
        self._state.forget_model(model)
        self._commands.append(Evict(model))
