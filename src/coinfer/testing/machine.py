"""VirtualMachine: drives a real dispatcher in virtual time, for tests of policies and of the core.

It knows nothing of real time, threads, backends or scenarios, and measures nothing; the product's
simulator is `coinfer.sim`. What it adds to the dispatcher is suspicion: after every event it asks
for the core's invariants, and it keeps its own record of who uses which compute unit.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import Any, assert_never

from coinfer.core.commands import Abandon, Command, Evict, Execution, Load, Reply, Run, SetTimer
from coinfer.core.dispatcher import Dispatcher, Limits
from coinfer.core.events import (
    Arrived,
    ArrivedTogether,
    Event,
    Failed,
    Finished,
    FinishedTogether,
    FusedLoaded,
    Loaded,
    LoadedVariant,
    LoadFailed,
    MemoryGiven,
    ModelLoaded,
    ProcessorLost,
    TimerFired,
)
from coinfer.core.lane import LaneKey
from coinfer.core.place import Loadable
from coinfer.core.policy import Policy
from coinfer.core.request import Outcome, Request
from coinfer.machine.batching import Batching
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Fork, Span, all_spans

__all__ = ["VirtualMachine", "loadables", "processors", "profile", "request"]


_NOTHING: Mapping[str, Any] = MappingProxyType({})


def processors(*names: str, **wide: Iterable[str]) -> list[Processor]:
    """Build processors: one compute unit for each name, several for each keyword.

    >>> [sorted(p.units) for p in processors("cpu0", "cpu1", all=("cpu0", "cpu1"))]
    [['cpu0'], ['cpu1'], ['cpu0', 'cpu1']]
    """
    units = {**{name: [name] for name in names}, **wide}
    return [
        Processor(name=name, backend="null", units=frozenset(of), threads=len(frozenset(of)))
        for name, of in units.items()
    ]


def request(model: str = "m", *, id: int = 0, arrival_s: float = 0.0, **fields: Any) -> Request:  # noqa: A002
    """Build a request; every field has a default.

    >>> request(deadline_s=1.0).model
    'm'
    """
    return Request(id=id, model=model, arrival_s=arrival_s, **fields)


def profile(
    model: str,
    seconds: Mapping[str, float],
    *,
    units: int = 1,
    gaps: Mapping[str, Collection[int]] = _NOTHING,
    most: int = 1,
    fixed_share: float = 0.0,
) -> Profile:
    """Build the profile of a model of `units` equal unit subgraphs, with every span of them.

    Args:
        model: Its name.
        seconds: Of the whole model by processor, also where the whole cannot run.
        units: How many.
        gaps: By processor, the units that it cannot run.
        most: Its largest batch; 1: only one sample was measured.
        fixed_share: Share of the time of one sample that further ones do not add.

    >>> batched = profile("m", {"cpu0": 0.03}, most=4, fixed_share=0.5)
    >>> round(batched.expected_s("m", "cpu0", batch=4), 3)
    0.075
    >>> profile("m", {"cpu0": 0.03}, units=3).expected_s("m", "cpu0", span=Span(1, 2))
    0.02
    >>> half = profile("m", {"npu": 0.04}, units=2, gaps={"npu": {1}})
    >>> [key.span for key, _ in half]
    [Span(first=0, last=0)]
    """
    return Profile(
        {
            ProfileKey(model, name, batch, span): Measurement(
                seconds=(
                    whole_s
                    * (span.last - span.first + 1)
                    / units
                    * (fixed_share + (1 - fixed_share) * batch),
                )
            )
            for batch in sorted({1, most})
            for name, whole_s in seconds.items()
            for span in all_spans(units)
            if not any(span.first <= gap <= span.last for gap in gaps.get(name, ()))
        }
    )


def loadables(
    known: Profile,
    size_bytes: int,
    *,
    load_s: float,
    shared: Collection[str] = (),
    ready: Collection[str] = (),
) -> tuple[Loadable, ...]:
    """Return what can be loaded of a model that has a profile, in the memory `host`.

    Args:
        known: Its profile.
        size_bytes: Of the whole model; a span takes its share of the units.
        load_s: Seconds to load the whole model; a span takes its share.
        shared: Processors that share a session of each span.
        ready: Processors for which nothing need ever be loaded.

    >>> [each.size_bytes for each in loadables(profile("m", {"a": 1.0}, units=2), 10, load_s=1.0)]
    [5, 10, 5]
    """
    units = max(key.span.last + 1 for key, _ in known)
    found: dict[tuple[Span, tuple[str, ...]], Loadable] = {}
    for key, _ in known:
        if key.processor in ready:
            continue
        share = (key.span.last - key.span.first + 1) / units
        together = tuple(shared) if key.processor in shared else (key.processor,)
        size, seconds = round(size_bytes * share), load_s * share
        found[key.span, together] = Loadable(key.span, together, "host", size, seconds)
    return tuple(found.values())


class VirtualMachine:
    """A dispatcher with processors that take as long as they are told.

    Attributes:
        now: Virtual seconds.
        dispatcher: The real core.
        commands: All that it asked for, in order.
        replies: Its replies by request id.
        running: What runs now, by execution id.
        executions: All that was ever started, in order.
        timer_s: When the timer will fire; infinite if it is not armed.
        unanswered: Ids of the requests that arrived and have no reply yet.
        reached: The unit boundary by request id, once something of it has run.
        loading: What is being loaded; None if nothing is.
        resident: What was loaded and not evicted, by the number of its place.

    >>> from coinfer.policies import make_policy
    >>> machine = VirtualMachine(processors("cpu0"), make_policy("fcfs"), {"m": {"cpu0": 0.5}})
    >>> ids = [machine.submit("m") for _ in range(2)]
    >>> machine.run()
    >>> machine.finished_s[ids[1]]
    1.0
    """

    def __init__(
        self,
        processors: Sequence[Processor],
        policy: Policy,
        seconds: Mapping[str, Mapping[str, float]],
        *,
        limits: Limits = Limits(),
        units: Mapping[str, int] = _NOTHING,
        gaps: Mapping[str, Mapping[str, Collection[int]]] = _NOTHING,
        forks: Mapping[str, tuple[Fork, ...]] = _NOTHING,
        batchings: Mapping[str, Batching] = _NOTHING,
        variants: Mapping[str, tuple[LoadedVariant, ...]] = _NOTHING,
        fixed_share: float = 0.0,
        fused: Mapping[str, tuple[Sequence[str], Mapping[str, float]]] = _NOTHING,
        handover_s: float = 0.0,
        budget: int | None = None,
        sizes: Mapping[str, int] = _NOTHING,
        load_s: float = 0.01,
        pinned: Collection[str] = (),
        shared: Collection[str] = (),
        ready: Collection[str] = (),
        service_s: Callable[[Execution], float] = lambda execution: execution.expected_s,
        checked: bool = True,
    ) -> None:
        """Build the machine with its models loaded.

        Args:
            processors: What can run.
            policy: The rule; a fresh one.
            seconds: Service time by model and processor, as `{model: {processor: seconds}}`.
            limits: The dispatcher's.
            units: Number of unit subgraphs by model, where it is not 1.
            gaps: By model and processor, the units that it cannot run.
            forks: By model, the pairs of spans that may run at the same time.
            batchings: By model, how far its requests may share executions.
            variants: By model, those beside the original.
            fixed_share: Of those models, the share of the time of one sample that more do not add.
            fused: By fused variant, its members, and its seconds by processor.
            handover_s: What the core is told that handing over such a run takes.
            budget: Bytes of memory for what is loaded; None: there is room for everything.
            sizes: Bytes by model, of the whole; needed with a budget. Of a variant that is not
                named they are half of its model's, of a fused one the sum of its members'.
            load_s: Seconds to load a whole model.
            pinned: Models of one unit that are never evicted.
            shared: Processors that share what is loaded.
            ready: Processors for which nothing need ever be loaded.
            service_s: How long an execution really takes; infinite means that it hangs.
            checked: Verify the core's invariants after every event: O(waiting requests) each.
        """
        self.now = 0.0
        self.dispatcher = Dispatcher(processors, policy, limits=limits)
        self.commands: list[Command] = []
        self.replies: dict[int, Reply] = {}
        self.finished_s: dict[int, float] = {}
        self.running: dict[int, Execution] = {}
        self.executions: list[Execution] = []
        self.timer_s = math.inf
        self.unanswered: set[int] = set()
        self.reached: dict[int, int] = {}
        self._ahead: dict[int, Span] = {}
        self._forked_from: dict[int, int] = {}
        self._units = {p.name: p.units for p in processors}
        self._ends: dict[int, float] = {}
        self._scheduled: list[tuple[float, int, Event]] = []
        self._order = count()
        self._request_ids = count()
        self._service_s = service_s
        self._checked = checked
        self.loading: Load | None = None
        self.resident: dict[int, Load] = {}
        self._load_end_s = math.inf
        self._is_gone = False
        if budget is not None:
            self.post(MemoryGiven({"host": budget}))
        self._budget, self._sizes, self._load_s, self._shared = budget, sizes, load_s, shared
        self._ready, self._pinned = ready, set(pinned)
        self._shape = (seconds, units, gaps, forks, batchings, fixed_share)
        self._variants, self._handover_s = variants, handover_s
        for model in seconds:
            self.load(model)
        for name, (members, row) in fused.items():
            self.fuse(name, members, row)

    def fuse(self, name: str, members: Sequence[str], seconds: Mapping[str, float]) -> None:
        """Let a fused variant serve its members, at first or again."""
        size = sum(self._sizes.get(each, 0) for each in members)
        known, places = self._what_fits(profile(name, seconds), self._sizes.get(name, size))
        self.post(FusedLoaded(name, tuple(members), known, places, self._handover_s))

    def _pinned_bytes(self) -> int:
        seconds = self._shape[0]
        found = [
            self._loadables(profile(name, seconds[name]), self._sizes[name])
            for name in self._pinned
        ]
        return sum(place.size_bytes for places in found for place in places)

    def _loadables(self, known: Profile, size: int) -> tuple[Loadable, ...]:
        return loadables(known, size, load_s=self._load_s, shared=self._shared, ready=self._ready)

    def _what_fits(self, known: Profile, size: int) -> tuple[Profile, tuple[Loadable, ...]]:
        """Return times and places without those that the budget has no room for."""
        if self._budget is None:
            return known, ()
        places = self._loadables(known, size)
        if self._pinned.intersection(known.models()):
            return known, tuple(place._replace(is_pinned=True) for place in places)
        left = self._budget - self._pinned_bytes()
        large = {(p.span, n) for p in places for n in p.processors if p.size_bytes > left}
        known = known.where(lambda key: (key.span, key.processor) not in large)
        return known, tuple(p for p in places if p.size_bytes <= left)

    def load(self, model: str, *, with_variants: bool = True) -> None:
        """Let a model take requests, at first or again."""
        seconds, units, gaps, forks, batchings, fixed_share = self._shape
        n_units, batching = units.get(model, 1), batchings.get(model)
        known = profile(
            model,
            seconds[model],
            units=n_units,
            gaps=gaps.get(model, _NOTHING),
            most=1 if batching is None else batching.most,
            fixed_share=fixed_share,
        )
        size = 0 if self._budget is None else self._sizes[model]
        known, places = self._what_fits(known, size)
        forked, others = forks.get(model, ()), list[LoadedVariant]()
        for each in self._variants.get(model, ()) if with_variants else ():
            half = self._sizes.get(each.name, size // 2)
            own, own_places = self._what_fits(each.profile, half)
            others.append(each._replace(profile=own, places=own_places))
        self.post(ModelLoaded(model, n_units, known, forked, {}, batching, tuple(others), places))

    def limit(self, budget: int, *, most: int = 10**9) -> None:
        """Give memory its first budget: until then all models are loaded, and stay.

        Args:
            budget: Bytes for what is loaded.
            most: Bytes of the largest place that may ever be loaded again.
        """
        assert self._budget is None, "there is a budget"
        self._budget = most
        places = {}
        seconds, units, gaps, _, batchings, fixed_share = self._shape
        for model in seconds:
            known = profile(
                model,
                seconds[model],
                units=units.get(model, 1),
                gaps=gaps.get(model, _NOTHING),
                most=1 if model not in batchings else batchings[model].most,
                fixed_share=fixed_share,
            )
            places[model] = self._what_fits(known, self._sizes[model])[1]
            for each in self._variants.get(model, ()):
                half = self._sizes.get(each.name, self._sizes[model] // 2)
                places[each.name] = self._what_fits(each.profile, half)[1]
        there = {
            name: tuple(p._replace(is_loaded=True) for p in row) for name, row in places.items()
        }
        self.post(MemoryGiven({"host": budget}, places=there))
        for place in self.dispatcher._state.residency.places.values():
            if place.is_loaded:
                what = place.variants[0], place.span, place.processors
                load = Load(place.id, *what, place.load_s, round(place.size))
                self.resident.setdefault(place.id, load)

    def submit(self, model: str = "m", *, is_followed: bool = False, **fields: Any) -> int:
        """Let a request arrive now, or at `arrival_s` if that is later; return its id.

        If another follows at once, what starts is decided with that one.
        """
        number = next(self._request_ids)
        fields.setdefault("arrival_s", self.now)
        kind = ArrivedTogether if is_followed else Arrived
        self.at(fields["arrival_s"], kind(request(model, id=number, **fields)))
        return number

    def at(self, at_s: float, event: Event) -> None:
        """Post an event at a moment to come, or now."""
        if at_s <= self.now:
            self.post(event)
        else:
            heapq.heappush(self._scheduled, (at_s, next(self._order), event))

    def post(self, event: Event) -> list[Command]:
        """Hand an event to the dispatcher now and perform what it returns."""
        if isinstance(event, Arrived):
            number = event.request.id
            known = number in self.unanswered or number in self.replies
            assert not known, f"{number} arrives twice"
            self.unanswered.add(number)
        if isinstance(event, ProcessorLost):
            for execution in [e for e in self.running.values() if e.processor == event.processor]:
                self._end(execution.id)
        commands = self.dispatcher.handle(event, self.now)
        for command in commands:
            self._perform(command)
        self.commands += commands
        if self._checked:
            self.dispatcher.check()
        return commands

    def finish(self, execution_id: int, *, is_followed: bool = False) -> list[Command]:
        """Let a running execution end well now.

        If another event follows at once, what starts is decided with that one.
        """
        execution = self._end(execution_id)
        for each in execution.requests:
            self._ran(each.id, execution.span)
        kind = FinishedTogether if is_followed else Finished
        return self.post(kind(execution_id, self.now - execution.started_s))

    def fail(self, execution_id: int, reason: str = "told to fail") -> list[Command]:
        """Let a running execution raise now."""
        self._end(execution_id)
        return self.post(Failed(execution_id, reason))

    def end_load(self, reason: str = "") -> list[Command]:
        """Let what is being loaded be there now, or fail for a reason."""
        load = self.loading
        assert load is not None
        self.loading, self._load_end_s = None, math.inf
        if reason:
            return self.post(LoadFailed(load.place, reason))
        if not self._is_gone:
            self.resident[load.place] = load
        return self.post(Loaded(load.place, load.expected_s))

    def hold_back(self, model: str, ready_s: Mapping[str, float]) -> None:
        """Let fresh requests of a model start on processors from these moments on only."""
        state, policy = self.dispatcher._state, self.dispatcher.policy
        fresh = [request(model, deadline_s=deadline_s) for deadline_s in (1.0, math.inf)]
        for queue in {policy.queue(each) for each in fresh}:
            state.hold_back(state.lane(LaneKey(model, queue=queue)), ready_s)
        for at_s in set(ready_s.values()):
            self.at(at_s, TimerFired())

    def lose(self, processor: str, reason: str = "told to die") -> list[Command]:
        """Let a processor die now, with what it runs."""
        return self.post(ProcessorLost(processor, reason))

    def fire_timer(self) -> list[Command]:
        """Let the armed timer go off: now, or at its moment if that is later."""
        self.now = max(self.now, self.timer_s)
        self.timer_s = math.inf
        return self.post(TimerFired())

    def step(self) -> bool:
        """Go to the next thing that happens; return False if nothing will."""
        number = min(self._ends, key=self._ends.__getitem__, default=-1)
        soonest = self.next_s
        if soonest == math.inf:
            return False
        self.now = max(self.now, soonest)
        if soonest == self._ends.get(number):
            self.finish(number)
        elif soonest == self._load_end_s:
            self.end_load()
        elif self._scheduled and soonest == self._scheduled[0][0]:
            self.post(heapq.heappop(self._scheduled)[2])
        else:
            self.fire_timer()
        return True

    def run(self, until_s: float = math.inf) -> None:
        """Go on until all submitted requests are answered, or the next thing is after `until_s`.

        Raises:
            AssertionError: requests are left and nothing will ever happen again.
        """
        while self.unanswered or self._scheduled:
            if self.next_s > until_s:
                self.now = until_s
                return
            assert self.step(), f"requests {sorted(self.unanswered)[:5]} are never answered"

    @property
    def next_s(self) -> float:
        """The moment of the next thing that happens; infinite if nothing will."""
        scheduled_s = self._scheduled[0][0] if self._scheduled else math.inf
        return min(*self._ends.values(), scheduled_s, self.timer_s, self._load_end_s, math.inf)

    def outcomes(self) -> dict[int, Outcome]:
        """Return the outcome by request id."""
        return {number: reply.outcome for number, reply in self.replies.items()}

    def _ran(self, number: int, span: Span) -> None:
        """Note that a span of a request is done: of a fork, perhaps the one that comes second."""
        if span.first > self.reached.get(number, 0):
            self._ahead[number] = span
            return
        ahead = self._ahead.pop(number, span)
        self.reached[number] = ahead.last + 1

    def _check_place(self, execution: Execution, number: int) -> None:
        """Verify that an execution goes on where the request stands, or beside it as a fork."""
        first, reached = execution.span.first, self.reached.get(number, 0)
        running = [e for e in self.running.values() if number in (each.id for each in e.requests)]
        if running:
            (left,) = running
            assert left.started_s == self.now, f"{execution} comes late beside {left}"
            assert first == left.span.last + 1, f"{execution} is no fork with {left}"
            self._forked_from[number] = left.span.first
            return
        # A fork of which a side failed may be begun again, if that is where others can go on.
        again = self._forked_from.pop(number, reached)
        assert first in (reached, again), f"{execution} does not go on from {reached}"
        self._ahead.pop(number, None)
        if first < reached:
            self.reached[number] = first

    def _end(self, execution_id: int) -> Execution:
        self._ends.pop(execution_id, None)
        return self.running.pop(execution_id)

    def _perform(self, command: Command) -> None:
        match command:
            case Run(execution):
                self._start(execution)
            case Reply(answered):
                assert answered.id not in self.replies, f"{answered.id} is answered twice"
                assert answered.id in self.unanswered, f"{answered.id} never arrived"
                self.replies[answered.id] = command
                self.unanswered.remove(answered.id)
                self.finished_s[answered.id] = self.now
            case SetTimer(at_s):
                self.timer_s = at_s
            case Abandon(execution):
                self._end(execution.id)
            case Load():
                assert self.loading is None, f"{command} beside {self.loading}"
                assert command.place not in self.resident, f"{command} is there"
                self.loading, self._is_gone = command, False
                self._load_end_s = self.now + command.expected_s
            case Evict():
                self._evict(command)
            case _:
                assert_never(command)

    def _evict(self, command: Evict) -> None:
        if command.place < 0:
            gone = [n for n, load in self.resident.items() if _is_variant(load, command.model)]
            for number in gone:
                del self.resident[number]
            if self.loading is not None and _is_variant(self.loading, command.model):
                self._is_gone = True
            return
        known = Load(command.place, command.model, command.span, command.processors, 0.0, 0)
        load = self.resident.pop(command.place, known)  # it may be there from before the budget
        used = [e for e in self.running.values() if _is_of(e, load)]
        assert not used, f"{command} while {used} run"

    def _start(self, execution: Execution) -> None:
        busy = {unit for e in self.running.values() for unit in self._units[e.processor]}
        clash = busy & self._units[execution.processor]
        assert not clash, f"{execution} uses {sorted(clash)}, which are busy"
        for each in execution.requests:
            self._check_place(execution, each.id)
        self.running[execution.id] = execution
        self.executions.append(execution)
        end_s = self.now + self._service_s(execution)
        if end_s < math.inf:
            self._ends[execution.id] = end_s


def _is_variant(load: Load, model: str) -> bool:
    """Tell whether what was loaded is a variant of a model."""
    return load.variant == model or load.variant.startswith(f"{model}@")


def _is_of(execution: Execution, load: Load) -> bool:
    """Tell whether an execution uses what was loaded."""
    mine = (execution.variant, execution.span)
    return mine == (load.variant, load.span) and execution.processor in load.processors
