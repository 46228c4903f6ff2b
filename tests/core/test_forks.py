"""Requests in two executions at once: when they fork, and what happens if something goes wrong."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from coinfer.core.commands import Abandon, Evict, Execution
from coinfer.core.dispatcher import Limits
from coinfer.core.events import Cancelled, Closed, Finished, ModelUnloaded
from coinfer.core.policy import Policy, Start, StartFork
from coinfer.core.request import Outcome
from coinfer.core.request_schedule import RequestSchedule
from coinfer.core.routes import Step
from coinfer.errors import PolicyError
from coinfer.machine.span import Fork, Span
from coinfer.policies import make_policy, policy_names
from coinfer.testing.machine import VirtualMachine, processors, request
from core.forking import Forking

PLANNING = ("heft", "heft_reserved", "least_slack", "shortest_expected_latency", "two_queues")
OPTIONS = {"fixed": {"assignment": {"m": "p"}}}
UNITS = 6
FORK = Fork(1, 3, 4)
"""A stem, two branches of two units each, and a head."""

LEFT, RIGHT = Span(1, 2), Span(3, 4)
IN_LINE_S, FORKED_S = 0.6, 0.4


def machine(
    policy: Any = "heft",
    *,
    seconds: Mapping[str, float] | None = None,
    names: Iterable[Any] | None = None,
    forks: tuple[Fork, ...] = (FORK,),
    **options: Any,
) -> VirtualMachine:
    if isinstance(policy, str):
        policy = make_policy(policy, **OPTIONS.get(policy, {}))
    return VirtualMachine(
        list(names or processors("p", "q")),
        policy,
        {"m": seconds or {"p": IN_LINE_S, "q": IN_LINE_S}},
        units={"m": UNITS},
        forks={"m": forks},
        **options,
    )


def at_the_fork(policy: Any = None, **options: Any) -> tuple[VirtualMachine, Execution, Execution]:
    """A request whose two sides have just started, and their executions."""
    subject = machine(policy or Forking(patient=True), **options)
    subject.submit("m")
    assert subject.step()
    left, right = subject.running.values()
    assert (left.span, right.span) == (LEFT, RIGHT)
    return subject, left, right


def started(subject: VirtualMachine) -> list[tuple[Span, str]]:
    return [(each.span, each.processor) for each in subject.executions]


class TestWhenItForks:
    @pytest.mark.parametrize("policy", PLANNING)
    def test_a_lone_request_finishes_sooner_on_two_processors(self, policy: str) -> None:
        subject = machine(policy)
        number = subject.submit("m")
        subject.run()
        assert subject.finished_s[number] == pytest.approx(FORKED_S)
        assert started(subject) == [
            (Span(0, 0), "p"),
            (LEFT, "p"),
            (RIGHT, "q"),
            (Span(5, 5), "p"),
        ]

    @pytest.mark.parametrize("policy", sorted(set(policy_names()) - set(PLANNING)))
    def test_policies_that_do_not_plan_never_fork(self, policy: str) -> None:
        subject = machine(policy)
        number = subject.submit("m")
        subject.run()
        assert subject.finished_s[number] == pytest.approx(IN_LINE_S)
        assert len(subject.executions) == 1

    @pytest.mark.parametrize("policy", PLANNING)
    @pytest.mark.parametrize(
        "seconds",
        [
            {"p": 0.6, "q": 6.0},  # the other processor is too slow
            {"p": 0.001, "q": 0.001},  # a branch takes less than a fork costs
            {"p": 0.6},  # there is no other processor
        ],
        ids=["too slow", "too small", "alone"],
    )
    def test_where_a_fork_is_no_gain_it_is_not_taken(
        self, policy: str, seconds: dict[str, float]
    ) -> None:
        subject = machine(policy, seconds=seconds)
        subject.submit("m")
        subject.run()
        assert started(subject) == [(Span(0, 5), "p")]

    @pytest.mark.parametrize("policy", PLANNING)
    def test_processors_that_share_units_cannot_run_the_two_sides(self, policy: str) -> None:
        names = processors("p", both=("p", "q"))
        subject = machine(policy, names=names, seconds={"p": 0.6, "both": 0.6})
        subject.submit("m")
        subject.run()
        assert len(subject.executions) == 1

    @pytest.mark.parametrize("policy", PLANNING)
    def test_nobody_waits_for_a_second_processor(self, policy: str) -> None:
        subject = machine(policy)
        for _ in range(2):
            subject.submit("m")
        subject.run()
        # The first goes as far as the fork; then the other has the other processor.
        assert max(subject.finished_s.values()) == pytest.approx(IN_LINE_S)
        assert len(subject.executions) == 3

    @pytest.mark.parametrize("policy", PLANNING)
    def test_a_machine_that_has_enough_to_do_makes_no_more_executions_than_without_forks(
        self, policy: str
    ) -> None:
        def executions(forks: tuple[Fork, ...]) -> int:
            subject = machine(policy, forks=forks)
            for _ in range(40):
                subject.submit("m")
            subject.run()
            return len(subject.executions)

        assert executions((FORK,)) <= executions(()) + 2

    @pytest.mark.parametrize("policy", PLANNING)
    def test_there_are_forks_beside_express_processors(self, policy: str) -> None:
        names = processors("p", "q")
        express = dataclasses.replace(names[0], name="p+", units=frozenset({"p+"}))
        express = dataclasses.replace(express, overlays=frozenset({"p"}))
        subject = machine(policy, names=[*names, express])
        subject.submit("m")
        subject.run()
        assert {e.processor for e in subject.executions} == {"p", "q"}

    def test_without_the_other_processor_the_first_side_begins_alone(self) -> None:
        """It may be idle and yet held for something more urgent."""
        subject = machine()
        lane = subject.dispatcher.view.entrance("m")
        plan = RequestSchedule((Step(LEFT, "p", 0.2), Step(RIGHT, "q", 0.2)), 0.0, 0.4, FORK)
        asked = request("m")
        assert plan.begin(asked, lane, {"p", "q"}) == StartFork(asked, "p", "q", FORK)
        assert plan.begin(asked, lane, {"p"}) == Start("p", (asked,), LEFT.last)

    def test_the_best_processors_are_found_for_both_sides(self) -> None:
        names = processors("slow", "fast", "middle")
        seconds = {"slow": 9.0, "fast": 0.6, "middle": 0.9}
        subject = machine("heft", names=names, seconds=seconds)
        subject.submit("m")
        subject.run()
        assert started(subject)[1:3] == [(LEFT, "fast"), (RIGHT, "middle")]

    def test_what_both_sides_took_is_learned(self) -> None:
        subject, left, right = at_the_fork()
        subject.now += 0.25  # 0.2 were expected
        subject.finish(left.id)
        subject.finish(right.id)
        for processor, span in (("p", LEFT), ("q", RIGHT)):
            assert subject.dispatcher.view.span_s("m", processor, span) == pytest.approx(0.205)


class TestWhatGoesWrong:
    @pytest.mark.parametrize("left_first", [True, False])
    def test_the_request_goes_on_when_both_have_ended_in_any_order(self, left_first: bool) -> None:
        subject, left, right = at_the_fork()
        first, second = (left, right) if left_first else (right, left)
        subject.finish(first.id)
        assert list(subject.running) == [second.id]
        subject.finish(second.id)
        (head,) = subject.running.values()
        assert head.span == Span(5, 5)
        subject.run()
        assert subject.outcomes() == {0: Outcome.COMPLETED}

    @pytest.mark.parametrize("left_first", [True, False])
    @pytest.mark.parametrize("left_fails", [True, False])
    def test_a_side_that_fails_is_tried_again_once_the_other_has_ended(
        self, left_fails: bool, left_first: bool
    ) -> None:
        subject, left, right = at_the_fork()
        ends = {left.id: left_fails, right.id: not left_fails}
        for number in sorted(ends, reverse=not left_first):
            assert len(subject.executions) == 3
            (subject.fail if ends[number] else subject.finish)(number)
        (again,) = subject.running.values()
        # The left side is not run again if it ended well: its values are there.
        assert again.span.first == (1 if left_fails else 3)
        assert again.processor == ("q" if left_fails else "p")
        subject.run()
        assert subject.outcomes() == {0: Outcome.COMPLETED}

    def test_both_sides_failing_is_one_attempt_and_both_reasons_are_told(self) -> None:
        subject, left, right = at_the_fork(
            names=processors("p", "q", "r"), seconds={"p": 0.6, "q": 0.6, "r": 0.6}
        )
        subject.fail(left.id, "left broke")
        subject.fail(right.id, "right broke")
        (again,) = subject.running.values()
        assert (again.span.first, again.processor) == (1, "r")
        subject.fail(again.id, "this too")
        reply = subject.replies[0]
        assert reply.outcome is Outcome.FAILED
        assert [reply.reason.find(why) > 0 for why in ("left", "right", "this")] == [True] * 3

    def test_a_request_that_may_not_be_tried_again_is_answered_when_both_have_ended(self) -> None:
        subject, left, right = at_the_fork(limits=Limits(retries=0))
        subject.fail(left.id)
        assert not subject.replies
        subject.finish(right.id)
        assert subject.outcomes() == {0: Outcome.FAILED}

    def test_where_only_the_start_of_the_fork_leads_on_it_is_begun_again(self) -> None:
        """The other processor runs the rest from there, but not the right side alone."""
        subject, left, right = at_the_fork()
        state = subject.dispatcher._state
        for span, row in state.estimates.rows("m", 1, 0).items():
            if span.first == 3:
                row.pop("p", None)
        state.routes.clear()
        subject._checked = False  # what was changed behind its back is not up to date
        subject.finish(left.id)
        subject.fail(right.id)
        (again,) = subject.running.values()
        assert (again.span.first, again.processor) == (1, "p")

    def test_a_cancelled_request_is_answered_when_both_sides_have_ended(self) -> None:
        subject, left, right = at_the_fork()
        subject.post(Cancelled(0))
        subject.finish(right.id)
        assert not subject.replies
        subject.finish(left.id)
        assert subject.outcomes() == {0: Outcome.CANCELLED}
        assert not subject.running

    def test_a_side_that_hangs_is_given_up_and_its_late_result_is_ignored(self) -> None:
        subject, _, right = at_the_fork(
            limits=Limits(hang_factor=10.0, hang_min_s=1.0),
            service_s=lambda e: math.inf if e.processor == "q" else e.expected_s,
        )
        subject.step()
        assert list(subject.running) == [right.id]
        while subject.dispatcher.view.processors.keys() != {"p"}:
            subject.fire_timer()
        assert [c.execution.id for c in subject.commands if isinstance(c, Abandon)] == [right.id]
        (again,) = subject.running.values()
        assert (again.span.first, again.processor) == (3, "p")
        late = subject.dispatcher.handle(Finished(right.id, 9.0), subject.now)
        assert late == []
        subject.run()
        assert subject.outcomes() == {0: Outcome.COMPLETED}

    @pytest.mark.parametrize("lost", ["p", "q"])
    def test_a_lost_processor_takes_only_its_own_side_along(self, lost: str) -> None:
        subject, _, _ = at_the_fork()
        subject.lose(lost)
        (other,) = subject.running.values()
        assert other.processor != lost
        subject.run()
        assert subject.outcomes() == {0: Outcome.COMPLETED}

    def test_a_model_that_is_unloaded_leaves_when_both_sides_have_ended(self) -> None:
        subject, _, _ = at_the_fork()
        subject.post(ModelUnloaded("m"))
        subject.run()
        assert subject.outcomes() == {0: Outcome.COMPLETED}
        assert sum(isinstance(each, Evict) for each in subject.commands) == 1
        assert not subject.dispatcher._state.forks

    def test_a_closing_engine_lets_forked_requests_finish(self) -> None:
        subject, _, _ = at_the_fork()
        subject.post(Closed(drop_waiting=True))
        subject.run()
        assert subject.outcomes() == {0: Outcome.COMPLETED}


class Deciding(Policy):
    """Makes one wrong decision."""

    def __init__(self, **change: Any) -> None:
        self.change = change

    def rank(self, request: Any) -> float:
        return 0.0

    def decide(self, view: Any) -> Any:
        (lane,) = view.lanes()
        right = {"left": "p", "right": "q", "fork": Fork(0, 1, 2), **self.change}
        yield StartFork(lane.head, **right)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fork": Fork(1, 3, 4)}, "cannot fork"),
        ({"fork": Fork(0, 1, 3)}, "cannot fork"),
        ({"right": "both"}, "share compute units"),
        ({"right": "p"}, "share compute units"),
        ({"left": "x"}, "is not idle"),
        ({"right": "other"}, "cannot run"),
    ],
)
def test_a_fork_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    names = processors("p", "q", "other", both=("p", "q"))
    subject = machine(
        Deciding(**change),
        names=names,
        seconds={"p": 0.6, "q": 0.6, "both": 0.6},
        forks=(Fork(0, 1, 2), FORK),
    )
    subject.submit("m")
    assert isinstance(subject.dispatcher.fault, PolicyError)
    assert message in str(subject.dispatcher.fault)
    assert subject.outcomes() == {0: Outcome.FAILED}
