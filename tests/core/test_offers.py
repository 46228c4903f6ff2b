"""What is offered is what runs; what is not ready can be reserved, not started; riders part."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coinfer.core.commands import Execution
from coinfer.core.dispatcher import Limits
from coinfer.core.events import Cancelled, ModelLoaded
from coinfer.core.lane import Lane, LaneKey
from coinfer.core.lookahead import Lookahead
from coinfer.core.offer import make_offer
from coinfer.core.policy import Policy, Start
from coinfer.core.request import Outcome, Request
from coinfer.core.routes import Step
from coinfer.core.state import State
from coinfer.core.view import View
from coinfer.errors import InvariantError, PolicyError
from coinfer.machine.span import Span
from coinfer.policies import make_policy, policy_names
from coinfer.testing.machine import VirtualMachine, processors, profile, request

CORES = processors("cpu0", "cpu1", "npu", all=("cpu0", "cpu1"))
SECONDS = {
    "m": {"cpu0": 0.2, "cpu1": 0.3, "npu": 0.1},
    "cut": {"cpu0": 0.08, "cpu1": 0.08, "npu": 0.02},
}
UNITS = {"cut": 4}
GAPS = {"cut": {"npu": {0}}}
OPTIONS: dict[str, dict[str, Any]] = {"fixed": {"assignment": {"m": "npu", "cut": "cpu0"}}}
READY_S = 1.0


def machine(policy: Policy | str = "fcfs", **options: Any) -> VirtualMachine:
    made = make_policy(policy, **OPTIONS.get(policy, {})) if isinstance(policy, str) else policy
    return VirtualMachine(CORES, made, SECONDS, units=UNITS, gaps=GAPS, **options)


def state_of(subject: VirtualMachine) -> State:
    return subject.dispatcher._state


class TogetherUnlessAlone(Policy):
    """Starts all of a lane as one execution, in its own batch."""

    def decide(self, view: View) -> Iterator[Start]:
        while found := view.first_startable():
            lane, able = found
            everyone = tuple(lane.in_order())
            yield Start(able[0], everyone[:1] if lane.key.alone else everyone)


class Asks(Policy):
    """First come, first served; keeps the offer of everything that it starts."""

    def __init__(self, last: Callable[[Lane], int | None] = lambda lane: None) -> None:
        self.offers: list[Any] = []
        self.executions: list[Execution] = []
        self._last = last

    def decide(self, view: View) -> Iterator[Start]:
        while found := view.first_startable():
            lane, able = found
            last = self._last(lane)
            self.offers.append(view.offer(lane, able[0], last))
            yield Start(able[0], (lane.head,), last)

    def started(self, execution: Execution) -> None:
        self.executions.append(execution)


class TestOffers:
    @pytest.mark.parametrize("last", [lambda lane: None, lambda lane: lane.key.position])
    def test_what_runs_is_what_was_offered(self, last: Callable[[Lane], int | None]) -> None:
        policy = Asks(last)
        subject = machine(policy)
        swap_s = {"npu": 0.03, "cpu0": 0.01}
        subject.post(ModelLoaded("swap", 1, profile("swap", {"npu": 0.1, "cpu0": 0.3}), (), swap_s))
        for _ in range(6):
            for model in (*SECONDS, "swap"):
                subject.submit(model)
        subject.run()
        assert len(policy.offers) == len(policy.executions) == len(subject.executions)
        for offer, execution in zip(policy.offers, policy.executions, strict=True):
            assert (offer.variant, offer.span, offer.processor, offer.riders) == (
                execution.variant,
                execution.span,
                execution.processor,
                (),
            )
            assert execution.expected_s == offer.seconds + offer.load_s == offer.cost_s
            assert offer.ready_s <= execution.started_s
        assert any(offer.load_s for offer in policy.offers)
        assert any(offer.span.last < 3 for offer in policy.offers if offer.variant == "cut")

    def test_the_column_is_the_seconds_of_the_offers_until_the_answer(self) -> None:
        view = machine().dispatcher.view
        lane = view.entrance("m")
        assert {n: view.offer(lane, n).expected_s for n in view.runners(lane)} == dict(
            view.offered_s(lane)
        )

    def test_what_a_processor_cannot_serve_is_not_offered(self) -> None:
        subject = machine()
        view = subject.dispatcher.view
        for name, lane in (("all", "m"), ("npu", "cut")):
            with pytest.raises(PolicyError, match="cannot run"):
                view.offer(view.entrance(lane), name)
        subject.submit("m")
        subject.fail(0)
        lane = state_of(subject).lane(LaneKey("m", excluded=frozenset({"npu"})))
        with pytest.raises(PolicyError, match="failed on 'npu' before"):
            view.offer(lane, "npu")

    def test_the_seconds_of_a_run_are_shared_by_those_whom_it_serves(self) -> None:
        step, riders = Step(Span(), "npu", 0.3), (request(id=1), request(id=2))
        offer = make_offer(Lane(LaneKey("m")), step, None, riders)
        assert offer.cost_s == pytest.approx(0.1)
        assert offer.expected_s == 0.3

    def test_the_invariants_hold_an_execution_against_its_offer(self) -> None:
        subject = machine()
        subject.submit("cut")
        state = state_of(subject)
        [(number, offer)] = state.offered.items()
        state.offered[number] = offer._replace(span=Span(0, 3))
        with pytest.raises(InvariantError, match="was offered"):
            subject.dispatcher.check()

    def test_the_variant_is_open_until_the_first_span_and_then_fixed(self) -> None:
        policy = Asks(lambda lane: lane.key.position)
        subject = machine(policy)
        subject.submit("cut")
        subject.run()
        keys = [offer.lane.key for offer in policy.offers]
        assert [(key.position, key.variant) for key in keys] == [
            (0, ""),
            (1, "cut"),
            (2, "cut"),
            (3, "cut"),
        ]


class TestReadiness:
    def held_back(self, policy: Policy | str, *names: str) -> VirtualMachine:
        subject = machine(policy)
        subject.hold_back("m", dict.fromkeys(names or SECONDS["m"], READY_S))
        return subject

    @pytest.mark.parametrize("policy", policy_names())
    def test_no_policy_starts_what_is_not_ready(self, policy: str) -> None:
        subject = self.held_back(policy)
        number = subject.submit("m")
        assert not subject.executions
        while subject.next_s < READY_S:
            assert subject.step()
            assert not subject.executions
        subject.run()
        assert subject.dispatcher.fault is None
        assert [e.requests[0].id for e in subject.executions] == [number]
        assert subject.executions[0].started_s >= READY_S

    @pytest.mark.parametrize("policy", policy_names())
    def test_others_are_served_meanwhile(self, policy: str) -> None:
        subject = self.held_back(policy)
        subject.submit("m")
        for _ in range(6):
            subject.submit("cut")
        subject.run(until_s=0.99 * READY_S)
        assert subject.executions
        assert all(e.model == "cut" for e in subject.executions)
        subject.run()
        assert subject.dispatcher.fault is None
        assert set(subject.outcomes().values()) == {Outcome.COMPLETED}

    def test_it_stays_visible_and_is_not_startable(self) -> None:
        subject = self.held_back("fcfs", "npu", "cpu0")
        view = subject.dispatcher.view
        lane = view.entrance("m")
        assert view.idle_runners(lane) == ["cpu1"]
        assert view.offer(lane, "npu").ready_s == READY_S
        assert view.offered_s(lane).keys() == SECONDS["m"].keys()
        subject.submit("m")
        assert [e.processor for e in subject.executions] == ["cpu1"]

    def test_a_policy_that_starts_it_all_the_same_is_stopped(self) -> None:
        class Hasty(Policy):
            def decide(self, view: View) -> Iterator[Start]:
                yield Start("npu", (next(view.by_arrival()),))

        subject = self.held_back(Hasty(), "npu")
        subject.submit("m")
        assert "is ready for 'npu' at 1.0 only; reserve it" in str(subject.dispatcher.fault)

    def test_it_can_be_reserved(self) -> None:
        subject = self.held_back("fcfs", "npu")
        view = subject.dispatcher.view
        lane, lookahead = view.entrance("m"), view.lookahead()
        lookahead.reserve(view.offer(lane, "npu"))
        assert lookahead.ready_s["npu"] == pytest.approx(READY_S + 0.1)
        assert lookahead.schedule(lane).steps[0].processor == "cpu0"

    def test_the_plan_of_what_is_not_ready_begins_when_it_is(self) -> None:
        subject = self.held_back("fcfs")
        view = subject.dispatcher.view
        plan = view.lookahead().schedule(view.entrance("m"))
        assert plan.steps[0].processor == "npu"
        assert (plan.start_s, plan.finish_s) == pytest.approx((READY_S, READY_S + 0.1))

    def test_a_lone_request_that_is_not_ready_waits(self) -> None:
        subject = self.held_back("earliest_finish", "npu")
        subject.submit("m")
        assert [e.processor for e in subject.executions] == ["cpu0"]


class TestFailureOfSeveral:
    def failed_together(self, **limits: Any) -> tuple[VirtualMachine, list[int]]:
        subject = machine(TogetherUnlessAlone(), limits=Limits(**limits))
        for _ in range(3):
            subject.submit("m")  # they keep the processors busy
        numbers = [subject.submit("m") for _ in range(3)]
        subject.step()
        assert [r.id for r in subject.executions[3].requests] == numbers
        subject.fail(3)
        return subject, numbers

    def test_each_goes_on_alone_and_it_was_nobodys_attempt(self) -> None:
        subject, numbers = self.failed_together(retries=0)
        subject.run()
        assert {subject.outcomes()[number] for number in numbers} == {Outcome.COMPLETED}
        assert [len(e.requests) for e in subject.executions[4:]] == [1] * len(numbers)

    def test_no_processor_is_excluded_and_its_health_is_as_before(self) -> None:
        subject, numbers = self.failed_together(set_aside_after=1)
        assert subject.dispatcher.outages == []
        assert not subject.dispatcher._faults._health.records
        for progress in state_of(subject).requests.values():
            assert not progress.lane.excluded
            assert not progress.failures
            assert progress.lane.key.alone == (progress.request.id in numbers)

    def test_only_a_run_alone_is_evidence(self) -> None:
        subject, numbers = self.failed_together(retries=0, set_aside_after=1)
        alone = subject.executions[4]
        assert alone.requests[0].id in numbers
        subject.fail(alone.id, "broken")
        assert subject.outcomes()[alone.requests[0].id] is Outcome.FAILED
        assert [outage.processor for outage in subject.dispatcher.outages] == [alone.processor]
        subject.run()
        assert len(subject.outcomes()) == 3 + len(numbers)

    def test_a_lost_processor_is_nobodys_attempt_either(self) -> None:
        subject = machine(TogetherUnlessAlone(), limits=Limits(retries=0, hang_min_s=math.inf))
        for name in ("cpu0", "cpu1"):
            subject.lose(name)
        numbers = [subject.submit("m") for _ in range(4)]
        subject.step()
        subject.dispatcher.check()
        assert len(subject.executions[-1].requests) == 3
        subject.lose("npu")
        assert subject.outcomes()[numbers[-1]] is Outcome.FAILED  # nothing can run it any more
        assert "no processor in service" in subject.replies[numbers[-1]].reason

    def test_who_cancelled_meanwhile_is_answered(self) -> None:
        subject = machine(TogetherUnlessAlone())
        for name in ("cpu0", "cpu1"):
            subject.lose(name)
        numbers = [subject.submit("m") for _ in range(3)]
        subject.step()
        subject.post(Cancelled(numbers[-1]))
        subject.fail(subject.executions[-1].id)
        assert subject.outcomes()[numbers[-1]] is Outcome.CANCELLED

    def test_who_must_go_alone_is_not_put_with_others_again(self) -> None:
        class AlwaysTogether(Policy):
            def decide(self, view: View) -> Iterator[Start]:
                while found := view.first_startable():
                    yield Start(found[1][0], tuple(found[0].in_order()))

        subject = machine(AlwaysTogether())
        for name in ("cpu0", "cpu1"):
            subject.lose(name)
        for _ in range(3):
            subject.submit("m")
        subject.step()
        subject.fail(subject.executions[-1].id)
        assert "is executed alone" in str(subject.dispatcher.fault)


class TestStarted:
    @pytest.mark.parametrize("decides", ["place", "pick", "decide"])
    def test_a_policy_is_told_of_each_start(self, decides: str) -> None:
        told: list[int] = []

        class Tells(Policy):
            def started(self, execution: Execution) -> None:
                told.append(execution.id)

        def place(self: Policy, view: View, lane: Lane, request: Request) -> str | None:
            able = view.idle_runners(lane)
            return able[0] if able else None

        def pick(self: Policy, view: View) -> tuple[Lane, str] | None:
            found = view.first_startable()
            return (found[0], found[1][0]) if found else None

        def decide(self: Policy, view: View) -> Iterator[Start]:
            while found := view.first_startable():
                yield Start(found[1][0], (found[0].head,))

        hooks = {"place": place, "pick": pick, "decide": decide}
        own = {"decide": decide, decides: hooks[decides]} if decides != "pick" else {"pick": pick}
        subject = machine(type("Own", (Tells,), own)())
        for _ in range(4):
            subject.submit("m")
            subject.submit("cut")
        subject.run()
        assert told == [e.id for e in subject.executions]

    def test_one_that_raises_is_stopped_and_all_are_answered(self) -> None:
        class Raises(Asks):
            def started(self, execution: Execution) -> None:
                if execution.id == 1:
                    raise ValueError("no more room in the book")

        subject = machine(Raises())
        for _ in range(6):
            subject.submit("m")
        subject.run()
        assert "no more room" in str(subject.dispatcher.fault)
        assert subject.dispatcher.n_unanswered == 0


class TestLookahead:
    @pytest.mark.parametrize("loads", [False, True])
    @pytest.mark.parametrize("held_back", [False, True])
    def test_to_reserve_a_step_is_to_reserve_its_offer(self, loads: bool, held_back: bool) -> None:
        subject = machine("fcfs")
        swap_s = {"npu": 0.05} if loads else {}
        for model in ("m", "n"):
            subject.post(ModelLoaded(model, 1, profile(model, SECONDS["m"]), (), swap_s))
        subject.submit("n")
        if held_back:
            subject.hold_back("m", {"npu": READY_S})
        view = subject.dispatcher.view
        lane, step = view.entrance("m"), Step(Span(), "npu", 0.1)
        one, other = view.lookahead(), view.lookahead()
        for _ in range(2):
            one.reserve(one.offer(lane, step))
            assert other.reserve_step(lane, step) == ()
            assert one.ready_s == other.ready_s

    def test_a_reservation_lasts_for_the_load_too(self) -> None:
        subject = machine("fcfs")
        subject.post(ModelLoaded("m", 1, profile("m", SECONDS["m"]), (), {"npu": 0.05}))
        subject.post(ModelLoaded("n", 1, profile("n", SECONDS["m"]), (), {"npu": 0.07}))
        subject.submit("n")
        view = subject.dispatcher.view
        lookahead: Lookahead = view.lookahead()
        offer = lookahead.offer(view.entrance("m"), Step(Span(), "npu", 0.1))
        assert offer.load_s == 0.05
        lookahead.reserve(offer)
        assert lookahead.ready_s["npu"] == pytest.approx(0.1 + 0.15)
        back = lookahead.offer(view.entrance("n"), Step(Span(), "npu", 0.1))
        assert back.load_s == 0.07
