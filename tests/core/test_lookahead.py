"""What a policy foresees: when processors will be free, and what its reservations change."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import islice

import pytest

from coinfer.core.dispatcher import Limits
from coinfer.core.events import ModelLoaded, ProcessorLost
from coinfer.core.lane import Lane, LaneKey
from coinfer.core.lookahead import Lookahead
from coinfer.core.part_of_view import PartOfView
from coinfer.core.policy import Policy, Start
from coinfer.core.request import Outcome, Request
from coinfer.core.request_schedule import RequestSchedule
from coinfer.core.routes import Step
from coinfer.core.view import View
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.policies import make_policy
from coinfer.testing.machine import VirtualMachine, processors

CORES = processors("cpu0", "cpu1", "npu", all=("cpu0", "cpu1"))
SECONDS = {"m": {"cpu0": 0.2, "cpu1": 0.3, "all": 0.15, "npu": 0.1}}
PATIENT = Limits(hang_min_s=math.inf)


def machine(seconds=SECONDS, **options) -> VirtualMachine:
    policy = options.pop("policy", None) or make_policy("fcfs")
    return VirtualMachine(CORES, policy, seconds, **{"limits": PATIENT, **options})


def reserve(lookahead: Lookahead, processor: str, seconds: float) -> None:
    lane = Lane(LaneKey("m"))
    lookahead.reserve(lookahead.offer(lane, Step(Span(), processor, seconds)))


class TestLookahead:
    def test_processors_are_ready_when_all_their_units_are_free(self) -> None:
        subject = machine()
        subject.submit("m")  # the npu takes the fewest unit-seconds
        subject.submit("m")
        assert subject.dispatcher.view.lookahead().ready_s == pytest.approx(
            {"cpu0": 0.2, "cpu1": 0.0, "npu": 0.1, "all": 0.2}
        )

    def test_a_reservation_keeps_what_shares_units_from_starting_earlier(self) -> None:
        lookahead = machine().dispatcher.view.lookahead()
        reserve(lookahead, "cpu0", 0.2)
        reserve(lookahead, "all", 0.15)
        assert lookahead.ready_s == pytest.approx(
            {"cpu0": 0.35, "cpu1": 0.35, "npu": 0, "all": 0.35}
        )

    def test_a_plan_is_made_anew_only_if_a_reservation_touches_it(self) -> None:
        subject = machine()
        lane, lookahead = subject.dispatcher.view.entrance("m"), subject.dispatcher.view.lookahead()
        schedule = lookahead.schedule(lane)
        assert [step.processor for step in schedule.steps] == ["npu"]
        reserve(lookahead, "cpu0", 5.0)
        assert lookahead.schedule(lane) is schedule
        reserve(lookahead, "npu", 0.1)
        assert [step.processor for step in lookahead.schedule(lane).steps] == ["npu"]
        assert lookahead.schedule(lane).finish_s == pytest.approx(0.2)
        reserve(lookahead, "npu", 0.15)
        assert [step.processor for step in lookahead.schedule(lane).steps] == ["cpu1"]

    def test_no_plan_finishes_later_than_was_said_for_less_work(self) -> None:
        subject = machine(
            {"m": {"npu": 0.03, "cpu0": 0.3, "cpu1": 0.36}},
            units={"m": 3},
            gaps={"m": {"npu": {1}}},
        )
        view = subject.dispatcher.view
        lane = view.entrance("m")
        for busy in ("npu", "cpu0", "cpu1"):
            lookahead = view.lookahead()
            reserve(lookahead, busy, 0.05)
            latest_s = lookahead.latest_s(lane)
            assert lookahead.schedule(lane).finish_s <= latest_s
            assert lookahead.latest_s(lane) == lookahead.schedule(lane).finish_s

    def test_guesses_of_earlier_lookaheads_change_no_plan(self) -> None:
        draw, names, units = random.Random(3), ["cpu0", "cpu1", "npu", "all"], 7
        seconds = {
            ProfileKey("m", name, 1, Span(first, last)): Measurement(
                seconds=(0.02 + sum(draw.uniform(0.01, 0.1) for _ in range(first, last + 1)),)
            )
            for name in names
            for first in range(units)
            for last in range(first, units)
        }
        subject = machine({})
        subject.post(ModelLoaded("m", units, Profile(seconds)))
        view = subject.dispatcher.view
        lane = view.entrance("m")
        assert lane.routes is not None
        guessed = set()
        for _ in range(150):
            reserved = [(draw.choice(names), draw.uniform(0.0, 0.3)) for _ in range(4)]

            def planned(reserved: list[tuple[str, float]] = reserved) -> list[RequestSchedule]:
                lookahead = view.lookahead()
                schedules = []
                for processor, reserved_s in reserved:
                    reserve(lookahead, processor, reserved_s)
                    schedules.append(lookahead.schedule(lane))
                return schedules

            guessed.add(lane.routes.guesses.get(0))
            schedules = planned()
            lane.routes.guesses.clear()
            assert planned() == schedules
        assert len(guessed) > 10

    def test_there_is_always_a_bound_even_where_a_guess_tells_nothing(self) -> None:
        # Infinite slack less an infinite bound would be no number, and order nothing.
        subject = machine()  # models of one unit
        lookahead = subject.dispatcher.view.lookahead()
        bounds = lookahead.bounds(subject.dispatcher.view.entrance("m"))
        assert bounds.latest_s == pytest.approx(0.1)
        reserve(lookahead, "npu", 0.04)
        assert bounds.latest_s == pytest.approx(0.14)

    def test_what_is_taken_counts_for_all_but_its_owner(self) -> None:
        subject = machine()
        lane, lookahead = subject.dispatcher.view.entrance("m"), subject.dispatcher.view.lookahead()
        mine = Step(Span(), "npu", 0.3)
        lookahead.take([mine, Step(Span(), "npu", 0.02)])
        assert lookahead.schedule(lane).steps[0].processor == "all"
        assert lookahead.schedule(lane, mine).steps[0].processor == "npu"
        assert lookahead.schedule(lane, mine).finish_s == pytest.approx(0.12)

    def test_a_lost_processor_is_not_planned_with(self) -> None:
        subject = machine()
        subject.post(ProcessorLost("npu", "unplugged"))
        lookahead = subject.dispatcher.view.lookahead()
        lookahead.take([Step(Span(), "npu", 0.3)])
        assert "npu" not in lookahead.ready_s
        lane = subject.dispatcher.view.entrance("m")
        assert lookahead.schedule(lane).steps[0].processor == "all"

    def test_a_processor_that_failed_a_request_is_not_in_its_plan(self) -> None:
        subject = machine({"m": {"npu": 0.1, "cpu0": 0.5}, "long": {"cpu0": 9.0}})
        subject.submit("long")
        number = subject.submit("m")
        subject.fail(1)
        view = subject.dispatcher.view
        lane = view.lane_of(subject.dispatcher._state.requests[number].request)
        assert [s.processor for s in view.lookahead().schedule(lane).steps] == ["cpu0"]


class TestFirstWaiting:
    @pytest.mark.parametrize("count", [1, 2, 5, 9, 40])
    def test_it_is_the_beginning_of_the_policys_order(self, count: int) -> None:
        subject = machine({name: {"npu": 0.1} for name in "abc"})
        for at in range(20):
            subject.submit("abc"[at * at % 3], deadline_s=10.0 + (at * 7) % 20)
        view = subject.dispatcher.view
        expected: dict[str, list[int]] = {}
        for lane, request in islice(view.in_order(), count):
            expected.setdefault(lane.model, []).append(request.id)
        found = view.first_waiting(count)
        assert {lane.model: [r.id for r in some] for lane, some in found.items()} == expected

    def test_with_nothing_waiting_it_is_empty(self) -> None:
        assert machine().dispatcher.view.first_waiting(3) == {}


class Queues(Policy):
    """First come, first served; priorities tell the queues apart."""

    def __init__(self, *first: int) -> None:
        self.order = first
        self.seen: list[tuple[int, list[int]]] = []

    def queue(self, request: Request) -> int:
        return request.priority

    def rank(self, request: Request) -> float:
        return request.arrival_s

    def decide(self, view: View) -> Iterator[Start]:
        for queue in self.order:
            part = PartOfView(view, queue)
            while found := part.first_startable():
                lane, able = found
                yield Start(able[0], (lane.head,))
                part.refresh()


class TestQueues:
    def test_requests_of_one_model_wait_apart(self) -> None:
        subject = machine({"m": {"npu": 0.1}}, policy=Queues(2, 1))
        subject.submit("m", priority=1)
        ones = [subject.submit("m", priority=1) for _ in range(2)]
        twos = [subject.submit("m", priority=2) for _ in range(2)]
        view = subject.dispatcher.view
        assert len(view.lanes()) == 2
        assert [r.id for r in PartOfView(view, 2).by_arrival()] == twos
        assert PartOfView(view, 1).n_waiting == 2
        assert PartOfView(view, 7).n_waiting == 0
        subject.run()
        order = [e.requests[0].id for e in subject.executions]
        assert order == [0, *twos, *ones]

    def test_a_retried_request_stays_in_its_queue(self) -> None:
        subject = machine({"m": {"npu": 0.1, "cpu0": 0.1}}, policy=Queues(1))
        number = subject.submit("m", priority=1)
        subject.fail(0)
        subject.run()
        assert subject.outcomes() == {number: Outcome.COMPLETED}

    def test_a_queue_that_cannot_be_told_stops_the_policy(self) -> None:
        class Broken(Queues):
            def queue(self, request: Request) -> int:
                raise ZeroDivisionError

        subject = machine({"m": {"npu": 0.1}}, policy=Broken(0))
        number = subject.submit("m")
        assert "ZeroDivisionError" in str(subject.dispatcher.fault)
        subject.run()
        assert number in subject.replies
        later = subject.submit("m")
        assert subject.replies[later].outcome is Outcome.REJECTED


class Watches(Queues):
    """Notes what comes."""

    def __init__(self, refuses: int = -1) -> None:
        super().__init__(0)
        self.refuses = refuses
        self.came: list[tuple[int, float]] = []

    def arrived(self, request: Request, now: float) -> None:
        if request.id == self.refuses:
            raise ZeroDivisionError
        self.came.append((request.id, now))


class TestWatching:
    def test_a_policy_is_told_of_each_request_once_when_it_comes(self) -> None:
        policy = Watches()
        subject = machine({"m": {"npu": 0.1, "cpu0": 0.1}}, policy=policy, units={"m": 3})
        for arrival_s in (0.0, 0.05, 0.4):
            subject.submit("m", arrival_s=arrival_s)
        subject.fail(0)
        subject.run()
        assert policy.came == [(0, 0.0), (1, 0.05), (2, 0.4)]

    def test_it_is_not_told_of_what_is_refused(self) -> None:
        policy = Watches()
        subject = machine({"m": {"npu": 0.1}}, policy=policy, limits=Limits(max_waiting=1))
        for _ in range(3):
            subject.submit("m")
        assert [number for number, _ in policy.came] == [0, 1]

    def test_its_failure_is_a_fault_and_all_are_answered(self) -> None:
        subject = machine({"m": {"npu": 0.1}}, policy=Watches(refuses=2))
        for _ in range(3):
            subject.submit("m")
        assert "ZeroDivisionError" in str(subject.dispatcher.fault)
        subject.run()
        assert subject.outcomes() == {
            0: Outcome.COMPLETED,
            1: Outcome.FAILED,
            2: Outcome.FAILED,
        }


class Leads(Policy):
    """Start one unit, wherever that leads."""

    def rank(self, request: Request) -> float:
        return request.arrival_s

    def decide(self, view: View) -> Iterator[Start]:
        lane, request = view.first()
        yield Start("npu", (request,), lane.key.position)


@pytest.mark.parametrize("leads_on", [True, False])
def test_a_step_that_leads_nowhere_is_refused(leads_on: bool) -> None:
    spans = [Span(0, 1), Span(0, 0), *([Span(1, 1)] if leads_on else [])]
    known = Profile(
        {ProfileKey("m", "npu", 1, span): Measurement(seconds=(0.1,)) for span in spans}
    )
    subject = machine({}, policy=Leads())
    subject.post(ModelLoaded("m", 2, known))
    number = subject.submit("m")
    subject.run()
    if leads_on:
        assert [e.span for e in subject.executions] == [Span(0, 0), Span(1, 1)]
        assert subject.outcomes() == {number: Outcome.COMPLETED}
    else:
        assert subject.executions == []
        assert "no processor in service can run 'm' after" in str(subject.dispatcher.fault)
