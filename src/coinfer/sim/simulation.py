"""Simulation: drives the dispatcher through a load in virtual time.

The dispatcher, the policy, the load and the observer are the objects of a real run; only the
processors are imagined. What happens at one instant happens in this order: executions end (in the
order of their start), what is being loaded is there, the timer fires, requests fall due (in the
order of their dues). Where the machine says how long it takes to submit them, they come later by
that, one after the other, but for those that follow from an answer, and for a load that is all due
at the start: that is submitted while the first of it run. So two simulations with the same seed
take the same steps to the last bit.
"""

from __future__ import annotations

import heapq
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from types import MappingProxyType

from coinfer.core.commands import Abandon, Command, Execution, Reply, Run, SetTimer
from coinfer.core.commands import Load as LoadPlace
from coinfer.core.dispatcher import Dispatcher, Limits
from coinfer.core.events import (
    Arrived,
    ArrivedTogether,
    Event,
    Finished,
    Loaded,
    MemoryGiven,
    PolicyChanged,
    ProcessorLost,
    ProcessorRestored,
    TimerFired,
)
from coinfer.core.policy import Policy
from coinfer.core.request import Outcome, Request
from coinfer.machine.submission import Submission
from coinfer.metrics.observers import Observer
from coinfer.opening import (
    check_memory,
    fits,
    fused_loaded,
    memory_given,
    model_loaded,
    nothing_given,
)
from coinfer.plan.plan import Plan, PolicyChoice
from coinfer.sim.completions import completions
from coinfer.sim.fused_cold import fused_cold
from coinfer.sim.services import Services
from coinfer.sim.submitting_thread import SubmittingThread
from coinfer.workload.load import Due, Load
from coinfer.workload.scenario import ModelSpec

__all__ = ["Simulation", "Tick"]

_INF = math.inf
_LATEST_S = sys.float_info.max
_new = tuple.__new__
"""Makes the events of every request: half the price of calling the class of a named tuple."""
_STEPS_PER_TICK = 20_000

Tick = Callable[[float], None]
"""Called now and then with the virtual seconds since the start."""


class Simulation:
    """One load on the machine of a plan, in virtual time, under one policy.

    Args:
        plan: What is loaded where, and how long it takes there.
        policy: A fresh policy.
        load: What is due when; a fresh one.
        specs: Deadline, priority, batch and what to do when late, by model.
        observer: Sees every step of the core.
        limits: What the core enforces whatever the policy wants.
        services: Draws service times; by default the machine's, with seed 0.
        shapes: Classes of sizes of each model's requests, in rotation; 0 of those not named.
        sizes: Numbers of their exact sizes, likewise.
        memory: What is said of memories in place of what the plan says, for comparisons.
        lost: Processors that are out of service from the start to the end.

    Attributes:
        now: Virtual seconds since the start.
        core: The dispatcher, e.g. to check its invariants.
    """

    def __init__(
        self,
        plan: Plan,
        policy: Policy,
        load: Load,
        specs: Mapping[str, ModelSpec],
        observer: Observer,
        *,
        limits: Limits = Limits(),
        services: Services | None = None,
        shapes: Mapping[str, Sequence[int]] = MappingProxyType({}),
        sizes: Mapping[str, Sequence[int]] = MappingProxyType({}),
        memory: MemoryGiven | None = None,
        lost: Collection[str] = (),
    ) -> None:
        plan.machine.check_runs(tuple(specs))
        machine = plan.machine.equipped()
        self.now = 0.0
        self.core = Dispatcher(machine.processors, policy, limits=limits)
        self._machine = machine
        self._load = load
        self._sizes = {
            model: (tuple(shapes.get(model, (0,))), tuple(sizes.get(model, (0,))))
            for model in specs
        }
        self.promise(specs)
        self._observer = observer
        self._services = services or Services(machine)
        self._completions = completions(machine.contention, self._services.overheads())
        self._agenda: list[Due] = []
        self._reacts = load.reacts
        self._dues = load.in_order()
        self._has_begun = False
        self._submission = machine.submission if load.end_s < _INF else Submission()
        self._is_submitted = bool(self._submission)
        self._submitting = SubmittingThread(machine)
        self._slowness = self._services.submissions()
        self._slow = next(self._slowness)  # how much slower than usual what is due next comes
        self._entered_s = -_INF
        self._at_once: list[Due] = []  # what follows from answers, where others come later
        self._asked: dict[int, Due] = {}
        self._n_asked = 0
        self._timer_s = _INF
        self._resident: dict[str, str] = {}
        self._units = {p.name: p.units | p.overlays for p in machine.processors}
        self._own = {p.name: p.units for p in machine.processors}
        self._cold = {**fused_cold(plan, machine), **machine.cold}
        self._last: dict[str, str] = {}
        self._free_since: dict[str, float] = {}
        self._abandoned: set[int] = set()
        self._loads: LoadPlace | None = None
        self._loaded_s = _INF
        self._open(plan, tuple(specs), memory or memory_given(plan))
        for name in lost:
            self._tell(ProcessorLost(name, "out of service"))

    @property
    def n_unanswered(self) -> int:
        """Requests that were submitted and not yet answered."""
        return self.core.n_unanswered

    def promise(self, specs: Mapping[str, ModelSpec]) -> None:
        """Promise requests that come from now on what these specs say, of the same models."""
        self._promises = {
            model: (
                _INF if spec.deadline_s is None else spec.deadline_s,
                spec.priority,
                spec.on_late,
                spec.batch,
                *self._sizes[model],
            )
            for model, spec in specs.items()
        }

    def change_policy(self, policy: Policy, choice: PolicyChoice, at_s: float) -> None:
        """Let another policy decide from now on, as `Engine.change_policy` does.

        Args:
            policy: A fresh one.
            choice: Its name and options, for logs.
            at_s: The moment, up to which `run` has gone.
        """
        self.now = max(self.now, at_s)
        event = PolicyChanged(policy, choice.name, choice.options)
        commands = self.core.handle(event, self.now)
        self._observer.observe(event, commands, self.now)
        for command in commands:
            if isinstance(command, Run):
                self._start(command.execution)
            elif isinstance(command, Reply):
                if self._reacts:
                    self._answer(command)
            else:
                self._note(command)

    def run(self, until_s: float = _INF, on_tick: Tick | None = None) -> None:
        """Go on until nothing is due or unanswered any more, or the next thing is after `until_s`.

        Called again, it goes on from there.

        Args:
            until_s: Virtual seconds since the start.
            on_tick: Called now and then, e.g. to show progress.
        """
        if not self._has_begun:
            self._has_begun = True
            first = self._load.initial() if self._dues is None else islice(self._dues, 1)
            for due in first:
                heapq.heappush(self._agenda, due)
        while self._go_on(until_s, _STEPS_PER_TICK):
            if on_tick is not None:
                on_tick(self.now)

    def _open(self, plan: Plan, models: Sequence[str], memory: MemoryGiven | None) -> None:
        """Tell the core what there is, and load what there is room for before the start."""
        are_loaded = True
        if memory is not None:
            check_memory(plan)
            are_loaded = fits(plan, models)
            self._tell(memory if are_loaded else nothing_given(memory))
        for model in models:
            self._tell(model_loaded(plan, model, plan.profile, are_loaded=are_loaded))
        for name in plan.fused:
            self._tell(fused_loaded(plan, name, plan.profile, are_loaded=are_loaded))
        if memory is not None and not are_loaded:
            self._tell(memory)
        while self._loads is not None:
            self._tell(self._end_load())

    def _tell(self, event: Event) -> None:
        """Let the core handle an event before the start: nothing but loads follows from it."""
        commands = self.core.handle(event, 0.0)
        self._observer.observe(event, commands, 0.0)
        for command in commands:
            self._note(command)

    def _note(self, command: Command) -> None:
        """Perform a command that is rare."""
        if isinstance(command, SetTimer):
            self._timer_s = command.at_s
        elif isinstance(command, Abandon):
            self._abandoned.add(command.execution.id)
        elif isinstance(command, LoadPlace):
            self._loads = command
            self._loaded_s = self.now + command.expected_s

    def _end_load(self) -> Loaded:
        load = self._loads
        assert load is not None
        self._loads, self._loaded_s = None, _INF
        return Loaded(load.place, load.expected_s)

    def _go_on(self, until_s: float, steps: int) -> bool:
        """Take so many steps; return False if nothing is left to do until then.

        One loop and not a method per step: this is the path of every request, and calls are what
        costs most there.
        """
        handle, observe = self.core.handle, self._observer.observe
        agenda, reacts, future = self._agenda, self._reacts, self._completions
        ends, start, pop = future.ends, future.start, future.pop
        draw = self._services.draw
        swaps, has_cold = self._machine.swaps, bool(self._cold)
        is_submitted = self._is_submitted
        until_s = min(until_s, _LATEST_S)
        for _ in range(steps):
            timer_s = self._timer_s
            end_s = ends[0][0] if ends else _INF
            due_s = agenda[0][0] if agenda else _INF
            if is_submitted:
                due_s = self._entry_s()
            load_s = self._loaded_s
            event: Event
            if load_s < end_s and load_s <= due_s and load_s <= timer_s:
                if load_s > until_s:
                    return False
                self.now = now = load_s
                event = self._end_load()
            elif end_s <= due_s and end_s <= timer_s:
                if end_s > until_s:
                    return False
                self.now = now = end_s
                _, number, execution, service_s = pop()
                if self._abandoned and number in self._abandoned:
                    self._abandoned.remove(number)  # nobody waits for it: the processor is back
                    event = ProcessorRestored(execution.processor)
                else:
                    event = _new(Finished, (number, service_s))
                if has_cold:
                    self._rest(execution.processor)
            elif due_s < timer_s:
                if due_s > until_s:
                    return False
                self.now = now = due_s
                event = self._submit()
            elif timer_s > until_s or not (ends or due_s < _INF or self.core.n_unanswered):
                return False  # a watchdog may be armed with nothing left to watch
            else:
                self.now = now = timer_s
                self._timer_s = _INF
                event = TimerFired()
            commands = handle(event, now)
            observe(event, commands, now)
            for command in commands:
                if type(command) is Run:
                    execution = command.execution
                    work_s = draw(execution)
                    if has_cold:
                        work_s *= self._coldness(execution)
                    if swaps:
                        work_s += self._swap_s(execution)
                    start(execution, work_s, now)
                elif type(command) is Reply:
                    if reacts:
                        self._answer(command)
                else:
                    self._note(command)
        return True

    def _entry_s(self) -> float:
        """Return when the next request comes to the core."""
        if self._at_once:
            return self.now
        if not self._agenda:
            return _INF
        due_s = self._agenda[0].time_s
        return max(self.now, self._submission.entry_s(due_s, self._entered_s, self._slow))

    def _enter(self, due: Due) -> None:
        """Note that a request has come to the core, by a thread that needed a core for it."""
        now = self.now
        began_s = max(due.time_s, self._entered_s)
        self._entered_s = now
        if stopped := self._submitting.stops(self._completions.running()):
            self._completions.hold_up(stopped, now - began_s)

    def _submit(self) -> Arrived:
        agenda, at_once = self._agenda, self._at_once
        due = at_once[0] if at_once else agenda[0]
        others = at_once or agenda
        is_entered = self._is_submitted and others is agenda
        if is_entered:
            self._enter(due)
        if self._dues is None:
            heapq.heappop(others)
            for each in self._load.after_due(due):
                heapq.heappush(agenda, each)
        elif (following := next(self._dues, None)) is None:
            agenda.clear()
        else:
            agenda[0] = following
        if is_entered and not (agenda and agenda[0].time_s <= self.now):
            self._slow = next(self._slowness)
        model, frame_s = due.model, due.frame_s
        if frame_s is None:
            frame_s = due.time_s
        patience_s, priority, on_late, batch, shapes, sizes = self._promises[model]
        number = self._n_asked
        self._n_asked = number + 1
        if self._reacts:
            self._asked[number] = due
        shape, size = shapes[due.index % len(shapes)], sizes[due.index % len(sizes)]
        until_s = frame_s + patience_s
        fields = (number, model, frame_s, until_s, priority, on_late, batch, shape, size)
        # What ends or fires at this moment came before; so another that is due is handled next.
        kind = ArrivedTogether if others and others[0].time_s == due.time_s else Arrived
        return _new(kind, (_new(Request, fields),))

    def _answer(self, reply: Reply) -> None:
        due = self._asked.pop(reply.request.id)
        completed = reply.outcome is Outcome.COMPLETED
        for following in self._load.after_answer(due, self.now, completed):
            is_there = following.time_s <= self.now and self._is_submitted
            heapq.heappush(self._at_once if is_there else self._agenda, following)

    def _start(self, execution: Execution) -> None:
        """Start an execution; `_go_on` has the same in its loop."""
        work_s = self._services.draw(execution)
        if self._cold:
            work_s *= self._coldness(execution)
        if self._machine.swaps:
            work_s += self._swap_s(execution)
        self._completions.start(execution, work_s, self.now)

    def _coldness(self, execution: Execution) -> float:
        """How many times longer it takes for what its units did before."""
        model, name = execution.variant, execution.processor
        units = self._units[name]
        last = self._last
        is_switch = any(last.get(unit) != model for unit in units)
        last.update(dict.fromkeys(units, model))
        # The unit that was busy last ended its rest last; the others have company. One that is busy
        # does not rest: an express run is on top of what runs there.
        free_since = self._free_since
        idle_s = max(0.0, self.now - max(free_since.get(unit, -_INF) for unit in units))
        free_since.update(dict.fromkeys(self._own[name], _INF))
        cold = self._cold.get((model, name))
        return 1.0 if cold is None else cold.factor(is_switch=is_switch, idle_s=idle_s)

    def _rest(self, name: str) -> None:
        """Note that the units of a processor rest from now on, but for those that others use."""
        free_since, own = self._free_since, self._own[name]
        for unit in self._units[name]:
            if unit in own or free_since.get(unit) != _INF:
                free_since[unit] = self.now

    def _swap_s(self, execution: Execution) -> float:
        """Seconds to make the model resident where only one is; the first one is free."""
        model, name = execution.variant, execution.processor
        before = self._resident.get(name, model)
        self._resident[name] = model
        if name not in self._machine.swaps or before == model:
            return 0.0
        return self._machine.swap_s(model)[name]
