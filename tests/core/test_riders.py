"""Riders: who shares an execution, who must not, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from coinfer.core.dispatcher import Limits
from coinfer.core.events import Cancelled
from coinfer.core.policy import Policy, Start
from coinfer.core.request import OnLate, Outcome, Request
from coinfer.core.view import View
from coinfer.machine.batching import Batching
from coinfer.policies import make_policy, policy_names
from coinfer.testing.machine import VirtualMachine, processors

ONE = processors("cpu0")
OPTIONS: dict[str, dict[str, Any]] = {"fixed": {"assignment": {"m": "cpu0", "n": "cpu0"}}}


def machine(
    policy: Policy | str = "fcfs",
    *names: str,
    share: float = 0.8,
    most: int = 16,
    seconds: dict[str, float] | None = None,
    **options: Any,
) -> VirtualMachine:
    """Models m, which batches, and n, which does not: t(b) = t(1) (share + (1 - share) b)."""
    made = make_policy(policy, **OPTIONS.get(policy, {})) if isinstance(policy, str) else policy
    options.setdefault("batchings", {"m": Batching(most)})
    return VirtualMachine(
        processors(*(names or ("cpu0",))),
        made,
        {"m": dict.fromkeys(names or ("cpu0",), 1.0), "n": dict.fromkeys(names or ("cpu0",), 0.3)}
        if seconds is None
        else {model: dict.fromkeys(names or ("cpu0",), s) for model, s in seconds.items()},
        fixed_share=share,
        **options,
    )


def served(subject: VirtualMachine) -> list[list[int]]:
    return [[r.id for r in e.requests] for e in subject.executions]


class TestWhoRides:
    @pytest.mark.parametrize("policy", policy_names())
    def test_what_waits_is_one_run_and_all_are_answered(self, policy: str) -> None:
        subject = machine(policy)
        for _ in range(5):
            subject.submit("m")
        subject.run()
        assert subject.dispatcher.fault is None
        assert [sorted(each) for each in served(subject)] == [[0], [1, 2, 3, 4]]
        assert set(subject.outcomes().values()) == {Outcome.COMPLETED}
        assert subject.executions[1].expected_s == pytest.approx(1.6)

    def test_no_more_samples_than_the_model_takes(self) -> None:
        subject = machine(most=4)
        subject.submit("m")
        for _ in range(3):
            subject.submit("m", batch=2)
        subject.run()
        assert served(subject) == [[0], [1, 2], [3]]

    def test_none_where_a_run_of_its_own_costs_no_more(self) -> None:
        subject = machine(share=0.04)
        for _ in range(4):
            subject.submit("m")
        subject.run()
        assert served(subject) == [[0], [1], [2], [3]]

    def test_only_equal_sizes(self) -> None:
        subject = machine()
        for sizes in (0, 1, 2, 1, 2):
            subject.submit("m", sizes=sizes)
        subject.run()
        assert served(subject) == [[0], [1, 3], [2, 4]]

    def test_none_of_a_model_that_does_not_batch(self) -> None:
        subject = machine()
        for _ in range(3):
            subject.submit("n")
        subject.run()
        assert served(subject) == [[0], [1], [2]]

    def test_what_waits_is_dealt_out_among_idle_processors(self) -> None:
        subject = machine("fcfs", "cpu0", "cpu1", batchings={"m": Batching(16, 0.1)})
        for _ in range(8):
            subject.submit("m")
        subject.run()
        assert [len(each) for each in served(subject)] == [4, 4]
        assert [e.started_s for e in subject.executions] == [0.1, 0.1]

    def test_late_arrivals_join_at_a_boundary(self) -> None:
        class LatestFirst(Policy):
            """One unit at a time; what came last goes first, so it catches up."""

            def rank(self, request: Request) -> float:
                return -request.arrival_s

            def decide(self, view: View) -> Iterator[Start]:
                while found := view.first_startable():
                    yield Start(found[1][0], (found[0].head,), found[0].key.position)

        subject = machine(LatestFirst(), units={"m": 2})
        subject.submit("m")
        subject.submit("m", arrival_s=0.1)
        subject.run()
        runs = [(e.span.first, sorted(r.id for r in e.requests)) for e in subject.executions]
        assert runs == [(0, [0]), (0, [1]), (1, [0, 1])]


class TestDeadlines:
    def test_nobody_becomes_late_by_a_rider(self) -> None:
        subject = machine("edf", most=16, limits=Limits(max_blocking_s=100.0))
        subject.submit("n")
        subject.submit("m", deadline_s=0.3 + 1.3)
        for _ in range(4):
            subject.submit("m", deadline_s=9.0)
        subject.run()
        assert served(subject) == [[0], [1, 2], [3, 4, 5]]  # t(2) = 1.2 <= 1.3 < t(3)

    def test_who_is_late_in_any_case_does_not_count(self) -> None:
        subject = machine("edf", limits=Limits(max_blocking_s=100.0))
        subject.submit("n")
        for _ in range(5):
            subject.submit("m", deadline_s=0.1)
        subject.run()
        assert served(subject) == [[0], [1, 2, 3, 4, 5]]

    def test_another_model_in_time_is_not_made_late(self) -> None:
        subject = machine("edf", limits=Limits(max_blocking_s=100.0))
        subject.submit("n")
        for _ in range(5):
            subject.submit("m", deadline_s=9.0)
        subject.submit("n", deadline_s=9.1)
        subject.run()
        assert served(subject)[1] == [1, 2, 3, 4, 5]
        subject = machine("fcfs", limits=Limits(max_blocking_s=100.0))
        subject.submit("n")
        for _ in range(5):
            subject.submit("m")
        subject.submit("n", deadline_s=0.3 + 1.45 + 0.3)
        subject.run()
        assert served(subject)[1] == [1, 2, 3]  # t(3) = 1.4 <= 1.45; what is next, the policy says

    def test_never_longer_than_twice_the_longest_run_where_deadlines_are(self) -> None:
        subject = machine("edf", most=32)
        subject.submit("n", deadline_s=100.0)
        for _ in range(20):
            subject.submit("m")
        subject.run()
        assert len(served(subject)[1]) == 6  # t(6) = 2.0

    def test_a_foreseen_frame_is_not_made_late(self) -> None:
        subject = machine("fcfs", limits=Limits(max_blocking_s=100.0))
        for at_s in range(0, 40, 4):
            subject.submit("n", arrival_s=float(at_s), deadline_s=at_s + 1.0)
        for _ in range(12):
            subject.submit("m", arrival_s=38.0)
        subject.submit("n", arrival_s=40.0, deadline_s=41.0)
        subject.run()
        assert subject.finished_s[10] <= 41.0  # 12 riders would take from 38.0 to 41.2


class TestFailures:
    def test_each_goes_on_alone_and_has_no_riders_again(self) -> None:
        subject = machine()
        for _ in range(4):
            subject.submit("m")
        subject.step()
        subject.fail(1)
        subject.run()
        assert served(subject) == [[0], [1, 2, 3], [1], [2], [3]]
        assert set(subject.outcomes().values()) == {Outcome.COMPLETED}

    def test_a_cancelled_rider_does_not_spoil_the_run(self) -> None:
        subject = machine()
        numbers = [subject.submit("m") for _ in range(4)]
        subject.step()
        subject.post(Cancelled(numbers[2]))
        subject.run()
        assert served(subject) == [[0], [1, 2, 3]]
        assert subject.outcomes()[numbers[3]] is Outcome.COMPLETED

    def test_one_that_waits_no_more_does_not_ride(self) -> None:
        subject = machine()
        numbers = [subject.submit("m") for _ in range(3)]
        subject.submit("m", deadline_s=0.5, on_late=OnLate.DROP)
        subject.post(Cancelled(numbers[1]))
        subject.run()
        assert served(subject) == [[0], [2]]
        assert subject.outcomes()[3] is Outcome.DROPPED


class TestDeferral:
    def test_nothing_without_deadlines_is_held_back(self) -> None:
        subject = machine()
        for at in range(5):
            subject.submit("m", arrival_s=0.05 * at)
        subject.run()
        assert subject.executions[0].started_s == 0.0

    @pytest.mark.parametrize("policy", policy_names())
    def test_max_delay_waits_for_others_and_no_longer(self, policy: str) -> None:
        subject = machine(policy, batchings={"m": Batching(3, 0.2)})
        for at_s in (0.0, 0.1, 5.0, 9.0, 9.01, 9.02):
            subject.submit("m", arrival_s=at_s)
        subject.run()
        assert subject.dispatcher.fault is None
        assert [sorted(each) for each in served(subject)] == [[0, 1], [2], [3, 4, 5]]
        starts = [e.started_s for e in subject.executions]
        assert starts == pytest.approx([0.2, 5.2, 9.02])

    def test_requests_with_deadlines_wait_while_the_next_is_worth_it(self) -> None:
        subject = machine("edf", limits=Limits(max_blocking_s=100.0))
        for at in range(40):  # every 0.5 s, of 1 s each: alone they cannot be served
            subject.submit("m", arrival_s=0.5 * at, deadline_s=0.5 * at + 6.0)
        subject.run()
        assert all(subject.finished_s[n] <= 0.5 * n + 6.0 for n in range(40))
        assert any(
            e.started_s > max(r.arrival_s for r in e.requests) for e in subject.executions[3:]
        )

    def test_not_where_they_come_seldom(self) -> None:
        subject = machine("edf")
        for at in range(10):
            subject.submit("m", arrival_s=3.0 * at, deadline_s=3.0 * at + 6.0)
        subject.run()
        assert [e.started_s for e in subject.executions] == [3.0 * at for at in range(10)]

    def test_not_where_all_can_be_served_alone_with_time_to_spare(self) -> None:
        names = ("cpu0", "cpu1", "cpu2", "cpu3")  # half of their time
        subject = machine("edf", *names, limits=Limits(max_blocking_s=100.0))
        for at in range(40):
            subject.submit("m", arrival_s=0.5 * at, deadline_s=0.5 * at + 6.0)
        subject.run()
        assert [e.started_s for e in subject.executions] == [0.5 * at for at in range(40)]
