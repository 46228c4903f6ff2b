"""The dispatcher driven through anything that can happen, in any order, with every policy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from coinfer.core.commands import Execution
from coinfer.core.dispatcher import Limits
from coinfer.core.events import (
    Cancelled,
    Closed,
    LoadedVariant,
    MemoryGiven,
    ModelUnloaded,
    ProcessorLost,
    ProcessorRestored,
)
from coinfer.core.lane import Lane
from coinfer.core.policy import Policy, Start
from coinfer.core.request import OnLate, Outcome, Request
from coinfer.core.request_schedule import EQUAL_S
from coinfer.core.routes import Step
from coinfer.core.state import State
from coinfer.core.variants import MARGIN, until_answer_s
from coinfer.core.view import View
from coinfer.errors import PolicyError
from coinfer.machine.batching import Batching
from coinfer.machine.processor import Processor
from coinfer.machine.span import Fork, Span
from coinfer.machine.variant_use import Use
from coinfer.policies import make_policy, policy_names
from coinfer.testing.machine import VirtualMachine, processors, profile
from core.forking import Forking

PROCESSORS = processors("cpu0", "cpu1", "npu", all=("cpu0", "cpu1"))
EXPRESS = [
    dataclasses.replace(p, name=f"{p.name}+", units=frozenset({f"{p.name}+"}), overlays=p.units)
    for p in PROCESSORS[:2]
]
NAMES = [p.name for p in (*PROCESSORS, *EXPRESS)]
TWINS = {p.name: p.name.removesuffix("+") for p in (*PROCESSORS, *EXPRESS)}
SECONDS = {
    "small": {"cpu0": 0.01, "cpu1": 0.012, "all": 0.007},
    "large": {"cpu0": 0.3, "cpu1": 0.3, "all": 0.17, "npu": 0.02},
    "deep": {"cpu0": 0.09, "cpu1": 0.09, "all": 0.05, "npu": 0.03},
    "picky": {"npu": 0.05, "all": 0.2},
    # No processor can run the first whole; cpu1 can run the second whole, and is slow.
    "patchy": {"cpu0": 0.08, "all": 0.05, "npu": 0.02},
    "holey": {"cpu0": 0.05, "cpu1": 0.2, "npu": 0.03},
    # Two spans of each of these may run at the same time.
    "twin": {"cpu0": 0.06, "cpu1": 0.06, "all": 0.05, "npu": 0.06},
    "wide": {"cpu0": 0.1, "cpu1": 0.1, "npu": 0.04},
}
UNITS = {"deep": 3, "patchy": 4, "holey": 5, "twin": 2, "wide": 6}
FORKS = {
    "twin": (Fork(0, 1, 1),),
    "wide": (Fork(0, 1, 1), Fork(2, 3, 4), Fork(2, 4, 4), Fork(3, 4, 4)),
}
GAPS = {
    "patchy": {"cpu0": {1}, "all": {1}, "npu": {0, 3}},
    "holey": {"cpu0": {2}, "npu": {0, 4}},
    "wide": {"npu": {0, 4}},
}
ASSIGNMENT = {
    "small": "cpu0",
    "large": "npu",
    "deep": "cpu1",
    "picky": "all",
    "patchy": "npu",
    "holey": "cpu0",
    "twin": "cpu0",
    "wide": "cpu1",
}
BATCHINGS = {
    "small": Batching(8),
    "large": Batching(4, 0.05),
    "deep": Batching(8),
    "patchy": Batching(6),
    "twin": Batching(4),
}
SIZES = {
    "small": 20,
    "large": 50,
    "deep": 90,
    "picky": 40,
    "patchy": 80,
    "holey": 100,
    "twin": 60,
    "wide": 120,
}
"""Bytes; with a budget of 100 one model runs in parts only."""
FIXED_SHARE = 0.6
"""Of the time of one sample, what more samples in one run do not add."""

LESS = {
    "small@c": {"cpu0": 0.004, "cpu1": 0.005, "all": 0.003},
    "small@i": {"cpu0": 0.002, "cpu1": 0.002},
    "large@c": {"cpu0": 0.1, "cpu1": 0.1, "npu": 0.01},
    "deep@c": {"cpu0": 0.03, "cpu1": 0.03, "all": 0.02, "npu": 0.01},
    "wide@c": {"cpu0": 0.03, "cpu1": 0.03, "npu": 0.01},
}
LESS_UNITS = {"deep@c": 2, "wide@c": 2}
LESS_FORKS = {"wide@c": (Fork(0, 1, 1),)}
USES = {"large@c": Use.ALWAYS}
LESS_BATCHINGS = {"small@c": Batching(4), "deep@c": Batching(8)}


FUSED = {
    "small+1": (("small", "large"), {"cpu0": 0.2, "cpu1": 0.2, "all": 0.1}),
    "large+1": (("large", "picky"), {"npu": 0.03}),
    "small+2": (("small", "large", "picky"), {"all": 0.15}),
}
"""Members are not alike here: the core does not know graphs."""


def variants(batchings: Mapping[str, Batching]) -> dict[str, tuple[LoadedVariant, ...]]:
    """Cheaper variants of some models, with other cuts; the further off the faster."""
    found: dict[str, tuple[LoadedVariant, ...]] = {}
    for name, seconds in LESS.items():
        model, units = name.split("@")[0], LESS_UNITS.get(name, 1)
        batching = LESS_BATCHINGS.get(name) if batchings else None
        most = 1 if batching is None else batching.most
        known = profile(name, seconds, units=units, most=most, fixed_share=FIXED_SHARE)
        each = LoadedVariant(
            name,
            0.01 if name.endswith("c") else 0.1,
            USES.get(name, Use.WHEN_LATE),
            units,
            known,
            LESS_FORKS.get(name, ()),
            {},
            batching,
        )
        found[model] = (each, *found.get(model, ()))  # not in the order of their errors
    return found


OPTIONS = {"fixed": {"assignment": ASSIGNMENT}}
WORK_CONSERVING = {
    "edf",
    "fcfs",
    "priority",
    "round_robin",
    "sjf",
    *("unit by unit", "batching", "forking"),
}


class UnitByUnit(Policy):
    """First come first served, one unit subgraph at a time."""

    last_is_next = True

    def rank(self, request: Request) -> float:
        return request.arrival_s

    def decide(self, view: View) -> Iterator[Start]:
        while found := view.first_startable():
            lane, able = found
            yield Start(able[0], (lane.head,), lane.key.position)


class ThreeAtOnce(Policy):
    """First come first served, up to three requests of a lane in one execution."""

    def rank(self, request: Request) -> float:
        return request.arrival_s

    def decide(self, view: View) -> Iterator[Start]:
        while found := view.first_startable():
            lane, able = found
            most = 1 if lane.key.alone else 3
            together = tuple(islice(lane.in_order(), most))
            yield Start(able[-1], together)


class Watched(VirtualMachine):
    """Sees that nobody is late by riders or served worse than needed, when an execution starts."""

    def _start(self, execution: Execution) -> None:
        if execution.variant in FUSED:
            check_fused(self.dispatcher._state, execution)
            super()._start(execution)
            return
        # What a batch of the policy's own takes is not what one of its requests would take.
        if len(execution.requests) == 1 or not isinstance(self.dispatcher.policy, ThreeAtOnce):
            check_variant(self.dispatcher._state, execution)
        if len(execution.requests) > 1 and not isinstance(self.dispatcher.policy, ThreeAtOnce):
            check_riders(self.dispatcher._state, execution)
        super()._start(execution)


def check_riders(state: State, execution: Execution) -> None:
    """Assert what is true of every execution with riders."""
    first, *riders = (state.requests[request.id] for request in execution.requests)
    waits_in, now = first.lane, execution.started_s
    lane = served_lane(waits_in, execution)
    assert lane.batching is not None
    assert execution.batch <= lane.batching.most
    assert not lane.excluded
    assert not lane.key.alone
    assert all(rider.lane is waits_in for rider in riders)
    own_s = state.step(lane, execution.processor, execution.span.last).seconds
    rest_s = 0.0 if lane.routes is None else lane.routes.rest_s(execution.span.last + 1)
    done_s = now + execution.expected_s + rest_s
    assert execution.expected_s < own_s * len(execution.requests), "it costs more than runs apart"
    least_s = min(s for name, s in lane.seconds.items() if name in state.in_service)
    for progress in (first, *riders):
        due_s = progress.request.deadline_s
        alone_s = own_s + rest_s if progress is first else least_s
        is_late_anyway = now + alone_s > due_s - EQUAL_S
        assert done_s <= due_s + EQUAL_S or is_late_anyway, f"{progress.request} is late by riders"
    check_others(state, execution, own_s, [waits_in])


def check_fused(state: State, execution: Execution) -> None:
    """Assert what is true of every run of a fused variant."""
    everyone = [state.requests[request.id] for request in execution.requests]
    lanes, now = [progress.lane for progress in everyone], execution.started_s
    members = state.fusions.by_name[execution.variant].members
    assert {lane.model for lane in lanes} <= set(members)
    assert len(set(lanes)) == len(lanes)
    assert not any(lane.is_rare for lane in lanes)
    if not state.residency.is_loaded(lanes[0].variant, Span(), execution.processor):
        return  # its own is not there to be compared with
    assert len(lanes) > 1
    own_s = [lane.seconds[execution.processor] for lane in lanes]
    assert execution.expected_s < sum(own_s), "it costs more than runs apart"
    for progress, seconds in zip(everyone, own_s, strict=True):
        alone_s = seconds
        if progress is not everyone[0]:
            alone_s = min(s for n, s in progress.lane.seconds.items() if n in state.in_service)
        due_s = progress.request.deadline_s
        is_late_anyway = now + alone_s > due_s - EQUAL_S
        is_in_time = now + execution.expected_s <= due_s + EQUAL_S
        assert is_in_time or is_late_anyway, f"{progress.request} is late by riders"
    check_others(state, execution, own_s[0], lanes)


def check_others(state: State, execution: Execution, own_s: float, lanes: Sequence[Lane]) -> None:
    """Assert that what waits in other lanes is not late by riders."""
    now = execution.started_s
    for number, request in state.waiting.items():
        other = state.requests[number].lane
        seconds = {n: s for n, s in other.seconds.items() if state.can_run(other, n)}
        if other in lanes or seconds.keys().isdisjoint(state.neighbours[execution.processor]):
            continue
        in_time_s = request.deadline_s - min(seconds.values())
        is_late_anyway = now + own_s > in_time_s - EQUAL_S
        ends_s = now + execution.expected_s
        assert ends_s <= in_time_s + EQUAL_S or is_late_anyway, f"{request} is late by riders"


def served_lane(lane: Lane, execution: Execution) -> Lane:
    """Return what the variant of an execution takes from a lane of its requests."""
    ways = {way.variant: way for way in (lane, *lane.cheaper)}
    return ways[execution.variant]


def steps(state: State, lane: Lane, processor: str) -> list[Step]:
    """Return what a policy may ask a processor to run of a lane: by default, or to a last unit."""
    found = [state.step(lane, processor)]
    for last in range(state.units[lane.variant]):
        with suppress(PolicyError):
            found.append(state.step(lane, processor, last))
    return found


def check_variant(state: State, execution: Execution) -> None:
    """Assert that no cheaper variant serves whom a more accurate one would serve in time."""
    processor, now = execution.processor, execution.started_s
    is_express = state.express is not None and processor in state.express.processors
    for request in execution.requests:
        lane = state.requests[request.id].lane
        served = served_lane(lane, execution)
        if served is lane or is_express:
            continue
        assert not execution.span.first
        ways, is_loaded = (lane, *lane.cheaper), state.residency.is_loaded
        for better in ways[: ways.index(served)]:
            if state.can_run(better, processor):
                span = state.step(better, processor).span
                if not is_loaded(better.variant, span, processor):
                    place = state.residency.place(better.variant, span, processor)
                    assert place is not None
                    has_room = place.size <= state.residency.pool(place).capacity
                    assert request.deadline_s < math.inf or not has_room, "it can wait"
                    continue
                seconds = max(
                    until_answer_s(state, better, step) for step in steps(state, better, processor)
                )
                in_time = now + (1 + MARGIN) * seconds <= request.deadline_s - EQUAL_S
                assert not in_time, f"{better.variant} is in time"


TEST_POLICIES = {"unit by unit": UnitByUnit, "batching": ThreeAtOnce, "forking": Forking}


def build(policy: str) -> Policy:
    if policy in TEST_POLICIES:
        return TEST_POLICIES[policy]()
    return make_policy(policy, **OPTIONS.get(policy, {}))


class AnythingHappens(RuleBasedStateMachine):
    policy = ""
    processors: Sequence[Processor] = PROCESSORS
    batchings: Mapping[str, Batching] = {}
    variants: Mapping[str, tuple[LoadedVariant, ...]] = {}
    fused: Mapping[str, tuple[tuple[str, ...], Mapping[str, float]]] = {}
    budget: int | None = None
    pinned: Sequence[str] = ()
    ready: Sequence[str] = ()

    def __init__(self) -> None:
        super().__init__()
        self.machine = Watched(
            self.processors,
            build(self.policy),
            SECONDS,
            units=UNITS,
            gaps=GAPS,
            forks=FORKS,
            batchings=self.batchings,
            variants=self.variants,
            fused=self.fused,
            fixed_share=FIXED_SHARE,
            budget=self.budget,
            sizes=SIZES,
            pinned=self.pinned,
            shared=("cpu0", "cpu1"),
            ready=self.ready,
            limits=Limits(max_waiting=12, hang_factor=10.0, hang_min_s=1.0),
        )
        self.is_limited = False
        self.lost: set[str] = set()
        self.failed_on: dict[int, set[str]] = {}
        self.alone: set[int] = set()
        self.loaded = set(SECONDS)
        self.served_by: dict[int, str] = {}
        self.n_executions = 0
        self.n_checked = 0
        self.kept: set[int] = set()

    @property
    def view(self) -> View:
        return self.machine.dispatcher.view

    @rule(
        model=st.sampled_from(sorted(SECONDS)),
        in_s=st.sampled_from([0.005, 0.1, 2.0, math.inf]),
        on_late=st.sampled_from(OnLate),
        priority=st.integers(-2, 2),
        batch=st.sampled_from([1, 1, 1, 4]),
        n=st.integers(1, 4),
        together=st.booleans(),
    )
    def arrive(
        self,
        model: str,
        in_s: float,
        on_late: OnLate,
        priority: int,
        batch: int,
        n: int,
        together: bool,
    ) -> None:
        deadline_s = self.machine.now + in_s
        for left in reversed(range(n)):
            number = self.machine.submit(
                model,
                is_followed=together and left > 0,
                deadline_s=deadline_s,
                on_late=on_late,
                priority=priority,
                batch=batch,
            )
            if model not in self.loaded:
                assert self.machine.replies[number].outcome is Outcome.REJECTED

    @rule(seconds=st.sampled_from([0.001, 0.03, 0.5]))
    def time_passes(self, seconds: float) -> None:
        # A driver fires the timer when it is due, before anything that is later.
        while self.machine.timer_s <= self.machine.now + seconds:
            until_s = self.machine.now + seconds - max(self.machine.timer_s, self.machine.now)
            self.machine.fire_timer()
            seconds = until_s
        self.machine.now += seconds

    @precondition(lambda self: self.machine.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        running = st.sampled_from(sorted(self.machine.running))
        *others, last = data.draw(st.lists(running, min_size=1, unique=True))
        for each in others:
            self.machine.finish(each, is_followed=True)
        self.machine.finish(last)

    @precondition(lambda self: self.machine.running)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        execution = self.machine.running[data.draw(st.sampled_from(sorted(self.machine.running)))]
        if len(execution.requests) == 1:
            failed_on = self.failed_on.setdefault(execution.requests[0].id, set())
            failed_on.add(TWINS[execution.processor])
        self.alone.update(r.id for r in execution.requests if len(execution.requests) > 1)
        self.machine.fail(execution.id)

    @precondition(lambda self: self.machine.unanswered)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.machine.unanswered)))
        waited = any(request.id == number for request in self.view.by_arrival())
        self.machine.post(Cancelled(number))
        if waited:
            assert self.machine.replies[number].outcome is Outcome.CANCELLED

    @precondition(lambda self: self.machine.timer_s < math.inf)
    @rule()
    def timer_fires(self) -> None:
        self.machine.fire_timer()

    @rule(name=st.sampled_from(NAMES))
    def lose(self, name: str) -> None:
        for execution in list(self.machine.running.values()):
            if execution.processor == name:
                self.machine.running.pop(execution.id)
                self.machine._ends.pop(execution.id)
        self.lost.add(name)
        self.machine.post(ProcessorLost(name, "unplugged"))

    @rule(name=st.sampled_from(NAMES))
    def restore(self, name: str) -> None:
        self.lost.discard(name)
        self.machine.post(ProcessorRestored(name))

    @rule(model=st.sampled_from(sorted(SECONDS)))
    def unload(self, model: str) -> None:
        self.loaded.discard(model)
        self.machine.post(ModelUnloaded(model))

    @rule(model=st.sampled_from(sorted(SECONDS)), with_variants=st.booleans())
    def load(self, model: str, with_variants: bool) -> None:
        self.loaded.add(model)
        state = self.machine.dispatcher._state
        failed = {n: p.lane.key for n, p in state.requests.items() if p.waits and p.lane.excluded}
        self.machine.load(model, with_variants=with_variants)
        for number, key in failed.items():
            progress = state.requests.get(number)
            if progress is not None and not progress.lane.excluded:  # it is pardoned
                assert key.model == model
                assert not state.has_runner(state.lane(key)), "it could have run elsewhere"
                self.failed_on.pop(number, None)

    @precondition(lambda self: self.fused)
    @rule(name=st.sampled_from(sorted(FUSED)))
    def fuse(self, name: str) -> None:
        self.machine.fuse(name, *FUSED[name])

    @precondition(lambda self: self.machine.loading is not None)
    @rule(reason=st.sampled_from(["", "", "", "the disk is full"]))
    def load_ends(self, reason: str) -> None:
        self.machine.end_load(reason)

    @precondition(lambda self: self.budget is None and not self.fused)
    @rule(budget=st.sampled_from([70, 100, 100, 2000]))
    def memory_is_limited(self, budget: int) -> None:
        if not self.is_limited:
            self.machine.limit(budget)
            self.is_limited = True

    @precondition(lambda self: self.budget is not None or self.is_limited)
    @rule(budget=st.sampled_from([40, 70, 100, 100, 2000]))
    def memory_changes(self, budget: int) -> None:
        self.machine.post(MemoryGiven({"host": budget}))
        self.kept = set()  # pins may have to go until what runs has ended

    @invariant()
    def the_budget_is_held(self) -> None:
        residency = self.machine.dispatcher._state.residency
        if self.budget is None and not self.is_limited:
            assert not residency.places
            return
        pool, resident = residency.pools["host"], self.machine.resident
        loading = [] if self.machine.loading is None else [self.machine.loading]
        sizes = {number: place.size for number, place in residency.places.items()}
        taken = sum(sizes.get(each.place, 0) for each in (*resident.values(), *loading))
        # What is in use when the budget becomes smaller goes as soon as it is not.
        places = residency.places.values()
        in_use = sum(place.size for place in places if place.running or place.is_loading)
        assert taken <= max(pool.capacity, in_use)
        assert set(resident) == {n for n, place in residency.places.items() if place.is_loaded}

    @invariant()
    def what_is_pinned_stays(self) -> None:
        residency = self.machine.dispatcher._state.residency
        pinned = {place.id for place in residency.places.values() if residency.is_kept(place)}
        there = pinned.intersection(self.machine.resident)
        assert self.kept & pinned <= there, "a pinned place was evicted"
        self.kept = there

    @invariant()
    def the_oldest_started_request_goes_on(self) -> None:
        state = self.machine.dispatcher._state
        started = [p for p in state.requests.values() if p.started and p.waits]
        if not started or self.machine.loading is not None or state.running:
            return
        oldest = min(started, key=lambda p: (p.request.arrival_s, p.request.id))
        is_ready = oldest.lane in state.lanes
        assert is_ready or self.machine.timer_s < math.inf, "nothing is loaded for it"

    @invariant()
    def no_unit_is_used_twice(self) -> None:
        units = [
            unit
            for execution in self.machine.running.values()
            for processor in self.processors
            if processor.name == execution.processor
            for unit in processor.units
        ]
        assert len(units) == len(set(units))

    @invariant()
    def the_policy_broke_no_rule(self) -> None:
        assert self.machine.dispatcher.fault is None, self.machine.dispatcher.fault

    @invariant()
    def executions_start_only_where_they_may(self) -> None:
        for execution in self.machine.executions[self.n_executions :]:
            twin = TWINS[execution.processor]
            if execution.variant in FUSED:
                assert execution.model in FUSED[execution.variant][0]
                assert twin in FUSED[execution.variant][1]
                self.note_variant(execution)
                continue
            assert execution.variant.split("@")[0] == execution.model
            assert twin in {**SECONDS, **LESS}[execution.variant]
            span = set(range(execution.span.first, execution.span.last + 1))
            assert span.isdisjoint(GAPS.get(execution.variant, {}).get(twin, ()))
            self.note_variant(execution)
        # One that was excused, or that somebody needs, is back in the step that asked for it.
        lost = self.lost & self.out_of_service()
        for execution in self.machine.running.values():
            assert execution.processor not in lost
            for request in execution.requests:
                assert len(execution.requests) == 1 or request.id not in self.alone
                assert TWINS[execution.processor] not in self.failed_on.get(request.id, ())
        self.n_executions = len(self.machine.executions)
        self.lost = self.out_of_service()  # the watchdog sets a processor aside on its own

    def note_variant(self, execution: Execution) -> None:
        """Assert that one variant serves a request from the first unit to the last."""
        for request in execution.requests:
            if not execution.span.first:
                self.served_by[request.id] = execution.variant
            assert self.served_by[request.id] == execution.variant, "the variant changes midway"

    def out_of_service(self) -> set[str]:
        in_service = self.machine.dispatcher._state.express
        express = {} if in_service is None else in_service.in_service
        return set(NAMES) - {*self.view.processors, *express}

    @invariant()
    def only_urgent_requests_preempt_and_nothing_more_urgent_is_held_up(self) -> None:
        for execution in self.machine.executions[self.n_checked :]:
            if execution.processor in TWINS and execution.processor != TWINS[execution.processor]:
                (request,) = execution.requests
                mine = (-request.priority, request.deadline_s)
                for other in self.machine.running.values():
                    overlaid = TWINS[execution.processor] in self.units_of(other.processor)
                    if overlaid and other.id < execution.id:
                        assert all(mine < (-e.priority, e.deadline_s) for e in other.requests)
        self.n_checked = len(self.machine.executions)

    @invariant()
    def no_wake_up_is_lost(self) -> None:
        waits = bool(self.machine.dispatcher._state.waiting)
        if self.view.n_waiting and self.policy in WORK_CONSERVING:
            assert not self.view.startable(), "work waits beside an idle processor"
        if waits:
            will = self.machine.running or self.machine.loading or self.machine.timer_s < math.inf
            assert will, "nothing will happen"
        if self.machine.running:
            assert self.machine.timer_s < math.inf, "no watchdog"
        for request in self.view.by_arrival():
            lane: Lane = self.view.lane_of(request)
            assert self.view.runners(lane), (
                f"{lane.key} waits and no processor in service can run it"
            )
            if (
                request.on_late is OnLate.DROP
                and request.deadline_s < math.inf
                and not (self.has_started(request.id))
            ):
                assert self.machine.timer_s <= max(request.deadline_s, self.machine.now)

    @invariant()
    def what_completed_ran_to_its_end(self) -> None:
        for number, reply in self.machine.replies.items():
            if reply.outcome is Outcome.COMPLETED:
                units = {**UNITS, **LESS_UNITS}.get(self.served_by[number], 1)
                assert self.machine.reached[number] == units

    def units_of(self, name: str) -> frozenset[str]:
        return next(p.units for p in self.processors if p.name == name)

    def has_started(self, number: int) -> bool:
        return any(r.id == number for e in self.machine.executions for r in e.requests)

    def teardown(self) -> None:
        """Close and let all that runs end: every request must be answered."""
        self.machine.post(Closed(drop_waiting=False))
        steps = 0
        while self.machine.unanswered:
            assert self.machine.step(), f"never answered: {self.machine.unanswered}"
            steps += 1
            assert steps < 1000, "it never ends"
        assert self.machine.dispatcher.n_unanswered == 0
        assert not self.machine.running
        answered = self.machine.submit("small")
        assert self.machine.replies[answered].outcome is Outcome.REJECTED


@pytest.mark.parametrize(
    ("varied", "budget"),
    [(False, None), (True, None), (False, 100), (True, 100)],
    ids=["originals", "with variants", "memory budget", "variants in a budget"],
)
@pytest.mark.parametrize("batchings", [{}, BATCHINGS], ids=["apart", "with riders"])
@pytest.mark.parametrize("express", [[], EXPRESS], ids=["ordinary", "with express processors"])
@pytest.mark.parametrize("policy", [*policy_names(), *TEST_POLICIES])
def test_every_request_is_answered_once_whatever_happens(
    policy: str,
    express: list[Processor],
    batchings: Mapping[str, Batching],
    varied: bool,
    budget: int | None,
) -> None:
    fields = {
        "policy": policy,
        "processors": [*PROCESSORS, *express],
        "batchings": batchings,
        "variants": variants(batchings) if varied else {},
        "budget": budget,
        "pinned": ["small"] if budget and batchings else [],
    }
    run(fields, examples=10 if varied or budget else 25)


@pytest.mark.parametrize("budget", [None, 100], ids=["", "memory budget"])
@pytest.mark.parametrize("batchings", [{}, BATCHINGS], ids=["apart", "with riders"])
@pytest.mark.parametrize("policy", [*policy_names(), *TEST_POLICIES])
def test_every_request_is_answered_once_where_models_are_fused(
    policy: str, batchings: Mapping[str, Batching], budget: int | None
) -> None:
    fields = {
        "policy": policy,
        "processors": [*PROCESSORS, *EXPRESS] if batchings else PROCESSORS,
        "batchings": batchings,
        "variants": variants(batchings) if batchings else {},
        "fused": FUSED,
        "budget": budget,
    }
    run(fields)


@pytest.mark.parametrize("budget", [None, 100], ids=["", "memory budget"])
@pytest.mark.parametrize("fused", [{}, FUSED], ids=["apart", "fused"])
@pytest.mark.parametrize("policy", ["fcfs", "earliest_finish", "edf"])
def test_every_request_is_answered_once_where_some_are_brief(
    policy: str, fused: Mapping[str, object], budget: int | None
) -> None:
    waking = [dataclasses.replace(p, wake_s=0.1 if len(p.units) < 2 else 0.0) for p in PROCESSORS]
    fields = {
        "policy": policy,
        "processors": [*waking, *EXPRESS] if fused else waking,
        "batchings": BATCHINGS if fused else {},
        "variants": variants(BATCHINGS) if fused else {},
        "fused": fused,
        "budget": budget,
    }
    run(fields, examples=25)


@pytest.mark.parametrize("batchings", [{}, BATCHINGS], ids=["apart", "with riders"])
@pytest.mark.parametrize("policy", [*policy_names(), *TEST_POLICIES])
def test_every_request_is_answered_once_where_only_fast_processors_have_a_budget(
    policy: str, batchings: Mapping[str, Batching]
) -> None:
    fields = {
        "policy": policy,
        "batchings": batchings,
        "variants": variants(batchings) if batchings else {},
        "budget": 100,
        "ready": ["cpu0", "cpu1"],
    }
    run(fields)


def run(
    fields: Mapping[str, object],
    *,
    examples: int = 10,
    base: type[AnythingHappens] = AnythingHappens,
) -> None:
    """Let anything happen, with these fields of the case."""
    case = type("Case", (base,), dict(fields))
    run_state_machine_as_test(
        case,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
            database=None,
        ),
    )
