"""Dispatcher: takes one event and the time, returns commands. The life of a plain request is here.

It reads no clock, starts no thread, opens no file and draws no random number: the engine and the
simulator drive the same object. One caller at a time; the drivers see to that.

The rules, in the order in which they apply after every event, and where they are:
 1. the event changes progress: a request arrived (`admission`, `waits`), finished, or was cancelled
    (`waits`); an execution failed, a processor was lost or is back (`faults`); a model was loaded
    or leaves (`admission`)
 2. droppable requests whose deadline passed before they started are dropped (`waits`)
 3. executions that overran their limit are abandoned (`watchdog`) and their processor is lost;
    one that was set aside for its failures is tried again when it is time (`faults`)
 4. if memory has no room for all that can be loaded, it is settled what is loaded and evicted
    (`loading`)
 5. if something waits and some processor is idle, the policy decides (`decisions`); each decision
    is checked (`starts`, `forks`)
 6. what still waits and is more urgent than what runs preempts, if there are express processors
    (`preemption`)
 7. the earliest moment to look again is armed as the timer (`timers`)
All parts change one `state`, write to its commands, and answer through `answers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from coinfer.core.admission import Admission
from coinfer.core.answers import Answers
from coinfer.core.blocking import Blocking
from coinfer.core.commands import Command, Execution, SetTimer
from coinfer.core.decisions import Decisions
from coinfer.core.deferral import Deferral
from coinfer.core.estimates import learn
from coinfer.core.events import (
    Arrived,
    ArrivedTogether,
    Cancelled,
    Closed,
    Event,
    Failed,
    Finished,
    FinishedTogether,
    FusedLoaded,
    Loaded,
    LoadFailed,
    MemoryGiven,
    MemoryMeasured,
    ModelLoaded,
    ModelUnloaded,
    PolicyChanged,
    ProcessorLost,
    ProcessorRestored,
    TimerFired,
)
from coinfer.core.failures import Failures
from coinfer.core.faults import Faults
from coinfer.core.forks import Forks
from coinfer.core.health import Health, Outage
from coinfer.core.invariants import check_state
from coinfer.core.learning import learn_from
from coinfer.core.limits import Limits
from coinfer.core.loading import Loading
from coinfer.core.policy import Policy, check_policy, overridden
from coinfer.core.preemption import Preemption
from coinfer.core.request import OnLate, Outcome
from coinfer.core.riders import Riders
from coinfer.core.starts import Starts
from coinfer.core.state import State
from coinfer.core.timers import Timers
from coinfer.core.view import View
from coinfer.core.waits import Waits
from coinfer.core.watchdog import Watchdog
from coinfer.errors import InvariantError, PolicyError
from coinfer.machine.processor import Processor

__all__ = ["Dispatcher", "Limits"]

_INF = math.inf
_DROP = OnLate.DROP
_COMPLETED = Outcome.COMPLETED


class Dispatcher:
    """The scheduling core of one engine or one simulation.

    >>> from coinfer.core.request import Request
    >>> from coinfer.policies import make_policy
    >>> from coinfer.machine.profile import Profile
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
        self.policy = check_policy(policy)
        self.limits = limits
        self._state = state = State(processors)
        self._riders = riders = Riders(state)
        self._view = view = View(state, riders)
        self._timers = timers = Timers()
        self._preemption = Preemption(state, view) if state.express is not None else None
        self._answers = answers = Answers(state)
        most_waiting = math.inf if limits.max_waiting is None else limits.max_waiting
        self._admission = admission = Admission(state, answers, policy, most_waiting)
        watchdog = Watchdog(state, timers, limits.hang_factor, limits.hang_min_s)
        self._starts = starts = Starts(
            state, timers, admission, watchdog, riders, overridden(policy, "started")
        )
        self._waits = waits = Waits(
            state, answers, admission, policy.rank, self._preemption, limits.retries
        )
        self._loading = Loading(state, waits, self._allows)
        self._held_back = self._loading.held
        self._forks = forks = Forks(state, answers, waits, starts)
        self._decisions = Decisions(policy, state, view, timers, answers, admission, starts, forks)
        self._blocking = Blocking(state, view, limits.max_blocking_s)
        self._deferral: Deferral | None = None  # while no model batches
        self._health = Health(limits.set_aside_after, limits.probe_s)
        self._faults = Faults(state, timers, self._health, watchdog, waits, forks)
        # One returns True if nothing is to be decided yet: another event follows at this moment.
        self._handlers: dict[type, Callable[[Any], bool | None]] = {
            Arrived: self._arrived,
            ArrivedTogether: self._arrived_together,
            Finished: self._finished,
            FinishedTogether: self._finished_together,
            Failed: self._faults.fail,
            Cancelled: waits.cancel,
            TimerFired: self._timer_fired,
            ProcessorLost: self._faults.lose,
            ProcessorRestored: self._faults.restore,
            ModelLoaded: self._model_loaded,
            FusedLoaded: self._fused_loaded,
            ModelUnloaded: self._admission.unload,
            MemoryGiven: self._loading.give,
            MemoryMeasured: self._memory_measured,
            Loaded: self._loading.loaded,
            LoadFailed: self._loading.failed,
            PolicyChanged: self._policy_changed,
            Closed: self._admission.close,
        }

    @property
    def view(self) -> View:
        """The read-only sight of the state that policies get."""
        return self._view

    @property
    def fault(self) -> PolicyError | None:
        """What the policy did wrong, after which it is asked no more; None if it works."""
        return self._admission.fault

    @property
    def memories(self) -> dict[str, tuple[float, float]]:
        """By memory that has a budget: its bytes, and those of them that are taken."""
        pools = list(self._state.residency.pools.items())
        return {name: (p.capacity, p.taken) for name, p in pools if p.capacity < _INF}

    @property
    def is_loading(self) -> bool:
        """Whether something is being loaded into a memory with a budget."""
        return self._loading.is_busy

    @property
    def n_unanswered(self) -> int:
        """Requests that have not been answered yet, waiting or running."""
        return len(self._state.requests)

    @property
    def running(self) -> dict[int, Execution]:
        """The executions that run, by id: always the same dictionary, and only to be read."""
        return self._state.running

    @property
    def outages(self) -> list[Outage]:
        """Which processors were ever taken out of service, for failures or because one died."""
        state = self._state
        in_service = [*state.in_service, *(state.express.in_service if state.express else ())]
        return self._health.outages(in_service)

    def unanswered(self) -> dict[str, tuple[int, int]]:
        """Count the requests without an answer by model: how many wait, how many run.

        Another thread may ask while an event is handled.
        """
        found: dict[str, tuple[int, int]] = {}
        for progress in list(self._state.requests.values()):
            waiting, running = found.get(progress.request.model, (0, 0))
            runs = progress.execution is not None
            found[progress.request.model] = (waiting + (not runs), running + runs)
        return found

    @property
    def failures(self) -> Failures:
        """How many runs failed, and how many of these were tried again."""
        return self._state.failures

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take an event at a moment; return what is to be done, in order.

        Args:
            event: What happened.
            now: The driver's time in seconds. Time does not run backwards: an earlier moment
                than the last one is taken as the last one.

        Returns:
            Commands for the driver to perform in the given order.
        """
        state, timers = self._state, self._timers
        if now < state.now:
            now = state.now
        state.now = self._view.now = now
        commands: list[Command] = []
        state.commands = commands
        if self._handlers[type(event)](event):
            return commands
        if timers.next_s <= now:
            self._look_again(now)
        waiting = state.waiting
        if state.residency.is_tight or self._held_back:
            self._decide_with_loads()
        elif waiting and state.used != state.all_units:
            if self._deferral is None:
                self._decisions.take()
            else:
                self._decide_with_riders(self._deferral)
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
            check_state(self._state)
        except AssertionError as error:
            raise InvariantError(f"the dispatcher's state is inconsistent: {error}") from error

    def _arrived(self, event: Arrived, *, is_followed: bool = False) -> None:
        request = event.request
        state, admission, decisions = self._state, self._admission, self._decisions
        waiting = state.waiting
        if (
            admission.closed
            or state.leaving
            or request.model not in state.variants
            or len(waiting) >= admission.most_waiting
        ) and admission.refuses(request):
            return
        if self._preemption is not None and request.priority < 0:
            self._preemption.arrived(request)
        deferral = self._deferral
        progress = state.add(request, decisions.queue_of(request) if decisions.is_told else 0)
        if deferral is not None:
            self._blocking.arrived(request)
            self._blocking.flow.note(progress.lane)
        if state.residency.places:
            state.residency.popularity.note(progress.lane.variant)
        if (
            not waiting
            and not is_followed
            and decisions.place is not None
            and not state.residency.is_tight
            and (deferral is None or not deferral.may_hold(progress.lane, request))
            and decisions.start_at_once(progress)
        ):
            return
        self._waits.begin(progress)
        if request.on_late is _DROP and request.deadline_s < _INF:
            if request.deadline_s <= self._state.now:
                self._waits.expire(request.id)
            else:
                self._timers.add_deadline(request, waiting)

    def _arrived_together(self, event: ArrivedTogether) -> bool:
        self._arrived(event, is_followed=True)
        return True

    def _finished(self, event: Finished) -> None:
        state = self._state
        execution = state.running.get(event.execution_id)
        if execution is None:
            return  # abandoned before: its requests are answered or run elsewhere
        span, requests, processor = execution.span, execution.requests, execution.processor
        service_s = event.service_s
        if state.residency.costs:
            service_s = state.own_s(execution, service_s)
        progress = state.requests[requests[0].id]
        lane = progress.lane
        row = None
        if len(requests) == 1 and lane.batching is None and execution.variant == lane.variant:
            row = lane.row
        until_look = state.estimates.until_look
        if row is not None and until_look and state.preempting is None:
            learn(row, processor, service_s)  # nearly always; `learn_from` would have to look it up
            state.estimates.until_look = until_look - 1
        else:
            row = None
            learn_from(state, execution, service_s)
        state.release(execution)
        if self._health.records:
            self._health.succeeded(processor)
        if state.running_forks and execution.id in state.running_forks:
            self._forks.end_side(execution.id, well=True)
            return
        if row is not None:  # of one unit, alone and by its own variant: nothing follows
            self._answers.reply(progress, _COMPLETED)
            return
        if lane.fused:
            state.fusions.succeeded(execution.variant)
        if span.last + 1 >= state.units[execution.variant]:
            self._answers.complete(requests)
            return
        for request in requests:
            progress = state.requests[request.id]
            progress.execution = None
            self._waits.go_on(progress, span.last + 1, execution.variant)

    def _finished_together(self, event: FinishedTogether) -> bool:
        self._finished(event)
        return True

    def _timer_fired(self, _event: TimerFired) -> None:
        self._timers.fired()

    def _model_loaded(self, event: ModelLoaded) -> None:
        state = self._state
        state.add_model(event)
        if state.batchings and self._deferral is None:
            self._begin_to_batch()
        self._faults.bring_back_needed()
        self._waits.pardon_stranded(event.model)
        self._waits.give_up_stranded()

    def _memory_measured(self, event: MemoryMeasured) -> None:
        residency = self._state.residency
        if event.place >= 0 and residency.resize(event.place, event.size_bytes):
            self._state.mark_lanes()

    def _fused_loaded(self, event: FusedLoaded) -> None:
        self._state.add_fused(event)
        if self._deferral is None:
            self._begin_to_batch()

    def _begin_to_batch(self) -> None:
        """Look after what riders must not make late, from the first model on that may have some."""
        blocking, state = self._blocking, self._state
        self._deferral = Deferral(state, self._view, blocking)
        self._waits.blocking = blocking
        blocking.note_all(state.requests.values())
        self._riders.longest_s, self._riders.flow = blocking.longest_s, blocking.flow
        self._riders.allows = self._allows

    @property
    def _allows(self) -> Callable[..., bool] | None:
        """Where the policy serves a lane at all; None: everywhere."""
        allows = overridden(self.policy, "allows")
        return None if allows is None else partial(allows, self._view)

    def _policy_changed(self, event: PolicyChanged) -> None:
        if self._admission.fault is not None:
            return  # nothing waits and nothing is taken any more
        self.policy = policy = check_policy(event.policy)
        self._admission.policy = policy
        self._decisions.follow(policy)
        self._starts.started = overridden(policy, "started")
        self._waits.rank = policy.rank
        self._loading.follow(self._allows)
        if self._deferral is not None:
            self._riders.allows = self._allows
        self._queue_anew()

    def _queue_anew(self) -> None:
        """Let all that waits wait in the order of the policy, with nothing lost."""
        state, decisions, admission = self._state, self._decisions, self._admission
        waiting = state.clear_waiting()
        self._loading.forget_lanes()
        self._blocking.forget_lanes()
        if self._deferral is not None:
            self._deferral.forget_lanes()
        for progress in list(state.requests.values()):
            if progress.execution is not None:
                queue = decisions.queue_of(progress.request) if decisions.is_told else 0
                progress.lane = state.moved(progress.lane, queue)
        for progress in waiting:
            if admission.fault is None:
                queue = decisions.queue_of(progress.request) if decisions.is_told else 0
                self._waits.begin_anew(progress, queue)
        if admission.fault is not None:
            admission.fail_lost()

    def _decide_with_riders(self, deferral: Deferral) -> None:
        again_s = deferral.settle() if deferral.may_be_needed else _INF
        self._decisions.take()
        if again_s < _INF:
            self._timers.wake(again_s)

    def _decide_with_loads(self) -> None:
        state, timers = self._state, self._timers
        if not state.residency.is_tight:
            self._loading.settle()
        deferral, again_s = self._deferral, _INF
        if deferral is not None:
            again_s = deferral.settle()
        held = () if deferral is None else deferral.held
        if state.residency.is_tight:
            again_s = min(again_s, self._loading.settle(held))
        starts = self._starts
        while state.lanes and state.used != state.all_units:
            starts.has_lent = starts.has_hidden = False
            self._decisions.take()
            # The policy may have given models elsewhere; who is first now may not be lent anything.
            if self._loading.allows is not None or starts.has_lent or starts.has_hidden:
                again_s = min(again_s, self._loading.settle(held))
            if not starts.has_lent:
                break
        again_s = min(again_s, self._loading.prefetch())
        if again_s < _INF:
            timers.wake(again_s)

    def _look_again(self, now: float) -> None:
        """Do what is due at this moment."""
        timers = self._timers
        for request_id in timers.pop_expired(now):
            self._waits.expire(request_id)
        # Only when the timer went off: all that was posted before it is handled by then, and how an
        # execution ended may stand behind many arrivals.
        if timers.watchdog_s <= now and timers.has_fired:
            self._faults.give_up_overdue()
        if timers.probe_s <= now:
            self._faults.bring_back(now)
        if timers.policy_s <= now:
            timers.policy_s = math.inf
        if timers.preempt_s <= now:
            timers.preempt_s = math.inf
        timers.settle(self._state.waiting)

    def _preempt(self, preemption: Preemption) -> None:
        for everyone, variant, (span, processor, seconds) in preemption.starts():
            for progress in everyone:
                self._state.dequeue(progress)
            requests = tuple([progress.request for progress in everyone])
            if variant in self._state.fusions.by_name:
                self._starts.note_fused(variant, everyone)
            self._starts.launch(variant, processor, requests, everyone, span, seconds)
        self._timers.preempt(preemption.again_s)
