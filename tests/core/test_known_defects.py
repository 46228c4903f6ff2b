"""What must hold, because it did not in a public implementation of span by span scheduling.

Each test is named after the property. Those that concern graphs, sessions and measurements are with
the tests of these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from coinfer.core.dispatcher import Dispatcher, Limits
from coinfer.core.events import (
    Arrived,
    Cancelled,
    Finished,
    ModelLoaded,
    ModelUnloaded,
)
from coinfer.core.policy import Decision, Policy
from coinfer.core.request import OnLate, Outcome, Request
from coinfer.core.view import View
from coinfer.errors import UnknownNameError
from coinfer.policies import make_policy, policy_names
from coinfer.testing.machine import VirtualMachine, processors, profile, request

PATIENT = Limits(hang_min_s=math.inf)
PLANNING = ("heft", "heft_reserved", "least_slack", "shortest_expected_latency", "two_queues")
SECONDS = {"m": {"npu": 0.03, "cpu": 0.3}}
UNITS = {"m": 3}
GAPS = {"m": {"npu": {1}}}


def make(policy: str) -> Policy:
    options = {"assignment": {"m": "npu"}} if policy == "fixed" else {}
    return make_policy(policy, **options)


def build(policy: str, **options) -> VirtualMachine:
    options = {"limits": PATIENT, "units": UNITS, "gaps": GAPS, **options}
    return VirtualMachine(processors("npu", "cpu"), make(policy), SECONDS, **options)


@pytest.mark.parametrize("policy", policy_names())
def test_requests_of_one_model_in_flight_keep_their_own_progress(policy: str) -> None:
    machine = build(policy)
    numbers = [machine.submit("m", arrival_s=0.004 * at) for at in range(8)]
    machine.run()
    for number in numbers:  # the machine refuses a span that does not follow on the last one
        spans = [e.span for e in machine.executions if e.requests[0].id == number]
        assert [u for first, last in spans for u in range(first, last + 1)] == [0, 1, 2]


@pytest.mark.parametrize("policy", policy_names())
def test_a_failing_processor_ends_neither_the_dispatcher_nor_a_request(policy: str) -> None:
    machine = build(policy, gaps={}, limits=Limits(hang_min_s=math.inf, retries=1))
    numbers = [machine.submit("m") for _ in range(12)]
    while machine.unanswered:
        failing = [e.id for e in machine.running.values() if e.processor == "npu"]
        if failing:
            machine.fail(failing[0], "device error")
        else:
            assert machine.step()
        if "npu" not in machine.dispatcher.view.processors:
            break
    assert machine.dispatcher.fault is None
    machine.run()
    assert machine.outcomes() == dict.fromkeys(numbers, Outcome.COMPLETED)


@pytest.mark.parametrize("policy", policy_names())
def test_unloading_a_model_leaves_nothing_of_it(policy: str) -> None:
    machine = build(policy)
    for batch in (1, 1, 2):
        machine.submit("m", batch=batch)
    machine.fail(0)
    machine.post(ModelUnloaded("m"))
    machine.run()
    state = machine.dispatcher._state
    assert not state.units
    assert not state.lanes
    assert not state._all_lanes
    assert not state._entrances
    assert not state.routes
    assert not state.estimates._rows
    assert not state.estimates._profiles
    assert not state.requests


class Counting(Policy):
    """A policy that counts how often it is asked."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.asked = 0

    def rank(self, request: Request) -> object:
        return self.policy.rank(request)

    def decide(self, view: View) -> Iterator[Decision]:
        self.asked += 1
        yield from self.policy.decide(view)


@pytest.mark.parametrize("policy", policy_names())
def test_no_policy_is_asked_while_every_processor_is_busy(policy: str) -> None:
    counting = Counting(make(policy))
    machine = VirtualMachine(processors("npu"), counting, {"m": {"npu": 0.03}}, limits=PATIENT)
    machine.submit("m")
    before = counting.asked
    for _ in range(50):
        machine.submit("m")
    assert counting.asked == before
    assert machine.timer_s == math.inf  # nor is a timer set to ask it again


@pytest.mark.parametrize("policy", policy_names())
def test_a_policy_that_waits_for_a_busy_processor_is_asked_seldom(policy: str) -> None:
    counting = Counting(make(policy))
    machine = VirtualMachine(
        processors("npu", "cpu"), counting, SECONDS, limits=PATIENT,
        service_s=lambda e: math.inf,
    )  # fmt: skip
    machine.submit("m")
    machine.submit("m")
    while machine.timer_s < 10.0:
        machine.fire_timer()
    assert counting.asked < 50


@pytest.mark.parametrize("policy", ["edf", "earliest_finish", "least_slack", "two_queues"])
def test_a_request_is_dropped_early_by_its_own_deadline_and_plan(policy: str) -> None:
    machine = build(policy)
    hopeless = machine.submit("m", deadline_s=0.11, on_late=OnLate.DROP)
    possible = machine.submit("m", deadline_s=0.13, on_late=OnLate.DROP)
    assert machine.outcomes() == {hopeless: Outcome.DROPPED}
    machine.run()
    assert machine.outcomes()[possible] is Outcome.COMPLETED


@pytest.mark.parametrize("policy", policy_names())
def test_no_number_of_waiting_requests_overwrites_any(policy: str) -> None:
    machine = build(policy, checked=False)
    numbers = [machine.submit("m") for _ in range(300)]
    machine.run()
    assert machine.outcomes() == dict.fromkeys(numbers, Outcome.COMPLETED)


@pytest.mark.parametrize("policy", PLANNING)
def test_plans_follow_the_estimates_at_once(policy: str) -> None:
    machine = build(policy, gaps={})
    assert machine.dispatcher.view.entrance("m").steps["npu"] == (0, 2)
    machine.submit("m")
    assert machine.executions[-1].processor == "npu"
    machine.now = 9.0  # it took very long, and what was expected of it doubles a few times
    machine.finish(0)
    for _ in range(40):
        machine.submit("m")
        last = machine.executions[-1]
        if last.processor == "cpu":
            break
        machine.now += 9.0
        machine.finish(last.id)
    assert machine.executions[-1].processor == "cpu"


def test_the_seconds_of_a_lane_follow_every_execution() -> None:
    machine = build("heft")
    lane = machine.dispatcher.view.entrance("m")
    seconds = lane.seconds
    before = dict(seconds)
    machine.submit("m")
    machine.now = 0.02  # twice as long as expected
    machine.finish(0)
    assert seconds["npu"] == pytest.approx(before["npu"] + 0.1 * 0.01)
    assert lane.seconds["npu"] == seconds["npu"]


@pytest.mark.parametrize("policy", policy_names())
def test_an_unknown_option_is_refused_by_name(policy: str) -> None:
    with pytest.raises(UnknownNameError, match=f"option of policy '{policy}' 'wndow'"):
        make_policy(policy, wndow=3)


@pytest.mark.parametrize("policy", PLANNING)
def test_a_processor_that_overruns_does_not_look_idle(policy: str) -> None:
    machine = VirtualMachine(
        processors("fast", "slow"),
        make_policy(policy),
        {"m": {"fast": 0.1, "slow": 0.4}},
        limits=PATIENT,
    )
    machine.submit("m")
    machine.now = 0.3  # 0.2 s late: as long again is to be expected
    lookahead = machine.dispatcher.view.lookahead
    machine.submit("m")
    assert lookahead().ready_s["fast"] == pytest.approx(0.5)
    machine.now = 1.0
    machine.submit("m")
    assert lookahead().ready_s["fast"] == pytest.approx(1.9)
    assert machine.executions[-1].processor == "slow"


def reserved_after(event: str) -> tuple[VirtualMachine, int]:
    """Let a request with a reservation end in some way."""
    machine = VirtualMachine(
        processors("npu", "cpu"),
        make_policy("heft_reserved"),
        {"m": {"npu": 0.2, "cpu": 2.0}, "x": {"cpu": 0.1}},
        units={"m": 2},
        gaps={"m": {"npu": {0}}},
        limits=Limits(hang_min_s=math.inf, retries=0),
    )
    number = machine.submit("m")
    assert number in machine.dispatcher.policy.reserved
    match event:
        case "completed":
            pass
        case "cancelled":
            machine.post(Cancelled(number))
        case "failed":
            machine.fail(0)
        case "unloaded":
            machine.post(ModelUnloaded("m"))
    machine.run()
    return machine, number


@pytest.mark.parametrize("event", ["completed", "cancelled", "failed", "unloaded"])
def test_a_reservation_ends_with_its_request_however_that_ends(event: str) -> None:
    machine, number = reserved_after(event)
    assert number in machine.replies
    machine.submit("x")  # the next decision
    assert machine.dispatcher.policy.reserved == {}


def test_estimates_of_a_model_that_was_replaced_do_not_reach_the_new_one() -> None:
    core = Dispatcher(processors("p"), make_policy("heft"))
    core.handle(ModelLoaded("m", 2, profile("m", {"p": 0.2}, units=2)), 0.0)
    run = core.handle(Arrived(request("m", id=0)), 0.0)[0]
    core.handle(ModelLoaded("m", 3, profile("m", {"p": 0.9}, units=3)), 0.1)
    core.handle(Finished(run.execution.id, 5.0), 5.0)
    core.check()
    assert core.view.entrance("m").seconds["p"] == pytest.approx(0.9)
