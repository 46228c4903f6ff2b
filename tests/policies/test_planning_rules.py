"""The rules of the policies that plan step by step, on the smallest machine that shows each."""

from __future__ import annotations

import math

import pytest

from coinfer.core.dispatcher import Limits
from coinfer.core.events import Cancelled, ProcessorLost
from coinfer.core.request import OnLate, Outcome
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.policies import make_policy
from coinfer.testing.machine import VirtualMachine, processors

PATIENT = Limits(hang_min_s=math.inf)
CORES = processors("cpu0", "cpu1", all=("cpu0", "cpu1"))
PLANNING = ("heft", "heft_reserved", "least_slack", "shortest_expected_latency")

# The accelerator is five times as fast and cannot run the middle.
CUT = {"m": {"npu": 0.03, "cpu": 0.15}}
UNITS = {"m": 3}
GAPS = {"m": {"npu": {1}}}


def build(policy: str, seconds, names=None, **options) -> VirtualMachine:
    names = names or dict.fromkeys(name for row in seconds.values() for name in row)
    of = names if isinstance(names, list) else processors(*names)
    policy_options = options.pop("options", {})
    options = {"limits": PATIENT, **options}
    return VirtualMachine(of, make_policy(policy, **policy_options), seconds, **options)


def placed(machine: VirtualMachine) -> list[tuple[int, str]]:
    return [(e.requests[0].id, e.processor) for e in machine.executions]


def steps_of(machine: VirtualMachine, number: int) -> list[tuple[str, int, int]]:
    return [(e.processor, *e.span) for e in machine.executions if e.requests[0].id == number]


@pytest.mark.parametrize("policy", PLANNING)
class TestAllOfThem:
    def test_a_lone_request_takes_the_fastest_way_through_the_processors(self, policy) -> None:
        machine = build(policy, CUT, units=UNITS, gaps=GAPS)
        number = machine.submit("m")
        machine.run()
        assert steps_of(machine, number) == [("npu", 0, 0), ("cpu", 1, 1), ("npu", 2, 2)]

    def test_the_rest_is_planned_anew_after_every_step(self, policy) -> None:
        machine = build(policy, {**CUT, "long": {"npu": 0.5}}, units=UNITS, gaps=GAPS)
        number = machine.submit("m")
        machine.run(until_s=0.02)  # the first step is over, the second runs
        machine.submit("long")  # takes the npu that the plan wanted for the third
        machine.run()
        assert steps_of(machine, number) == [("npu", 0, 0), ("cpu", 1, 1), ("cpu", 2, 2)]

    def test_a_slow_free_processor_does_not_take_what_a_busy_one_finishes_sooner(
        self, policy
    ) -> None:
        machine = build(policy, {"m": {"fast": 0.1, "slow": 1.2}})
        for _ in range(3):
            machine.submit("m")
        machine.run()
        assert [p for _, p in placed(machine)] == ["fast"] * 3

    def test_it_takes_what_the_busy_one_would_finish_later(self, policy) -> None:
        machine = build(policy, {"m": {"fast": 0.1, "slow": 0.25}})
        for _ in range(8):
            machine.submit("m")
        machine.run()
        assert "slow" in [p for _, p in placed(machine)]
        assert machine.now < 0.7

    def test_a_wide_processor_gets_its_turn_although_single_cores_are_never_both_free(
        self, policy
    ) -> None:
        seconds = {"m": {"cpu0": 0.1, "cpu1": 0.13}, "wide": {"all": 0.1}}
        machine = build(policy, seconds, CORES)
        for at in range(100):
            machine.submit("m", arrival_s=0.04 * at)
        number = machine.submit("wide", arrival_s=0.5)
        machine.run(until_s=3.5)
        assert number in machine.replies

    def test_a_window_below_one_is_refused(self, policy) -> None:
        with pytest.raises(ConfigurationError, match="window must be at least 1"):
            make_policy(policy, window=0)

    def test_of_one_model_only_the_window_is_looked_at(self, policy) -> None:
        # The first request of b waits for the busy processor; then the free one is the better.
        seconds = {"a": {"p": 1.0}, "b": {"p": 1.0, "q": 2.5}}
        for window, started in ((1, 1), (2, 2)):
            machine = build(policy, seconds, options={"window": window})
            machine.submit("a")
            machine.submit("b")
            machine.submit("b")
            assert len(machine.executions) == started

    def test_no_processor_in_service_gets_what_it_cannot_run(self, policy) -> None:
        machine = build(policy, CUT, units=UNITS, gaps=GAPS)
        machine.post(ProcessorLost("cpu", "unplugged"))
        number = machine.submit("m")
        assert machine.outcomes() == {number: Outcome.FAILED}  # nothing else runs the middle


class TestHeft:
    def test_the_most_demanding_request_goes_first(self) -> None:
        machine = build("heft", {"long": {"p": 0.3}, "short": {"p": 0.1}})
        for model in ("short", "short", "long", "short"):
            machine.submit(model)
        machine.run()
        assert [number for number, _ in placed(machine)] == [0, 2, 1, 3]

    def test_what_yields_counts_on_its_processor_for_the_others(self) -> None:
        # p is busy until 0.3. The first to look waits for it, the next would finish at 0.9 there.
        machine = build("heft", {"m": {"p": 0.3, "q": 0.7}})
        for _ in range(3):
            machine.submit("m")
        assert placed(machine) == [(0, "p"), (2, "q")]
        machine.run()
        assert placed(machine)[2] == (1, "p")

    def test_it_looks_again_if_the_busy_processor_overruns(self) -> None:
        machine = build(
            "heft",
            {"m": {"fast": 0.1, "slow": 1.2}},
            service_s=lambda e: math.inf if e.processor == "fast" else e.expected_s,
        )
        machine.submit("m")
        second = machine.submit("m")
        for _ in range(10):
            if second in machine.replies:
                break
            machine.step()
        assert machine.replies[second].outcome is Outcome.COMPLETED


class TestHeftReserved:
    SECONDS = {"m": {"npu": 0.2, "cpu": 2.0}, "x": {"npu": 0.4, "cpu": 0.6}}  # noqa: RUF012
    # m runs its first unit on the cpu only, and then wants the npu.
    SPLIT = {"units": {"m": 2}, "gaps": {"m": {"npu": {0}}}}  # noqa: RUF012

    def started(self, policy: str) -> VirtualMachine:
        """Let m begin on the cpu, with the npu busy; x can choose when the cpu is free again."""
        machine = build(policy, self.SECONDS, processors("npu", "cpu"), **self.SPLIT)
        machine.submit("m")
        return machine

    def test_the_second_step_counts_as_taken_for_others(self) -> None:
        machine = self.started("heft_reserved")
        assert {n: s.processor for n, s in machine.dispatcher.policy.reserved.items()} == {0: "npu"}

    def test_it_does_not_count_for_the_request_itself(self) -> None:
        machine = self.started("heft_reserved")
        machine.run()
        assert steps_of(machine, 0) == [("cpu", 0, 0), ("npu", 1, 1)]

    def test_a_reservation_makes_another_choose_another_processor(self) -> None:
        # y takes the npu in 0.3 s or, in 0.35 s, the gpu; the npu is reserved for 0.1 s.
        seconds = {"m": {"npu": 0.2, "cpu": 2.0}, "y": {"npu": 0.3, "gpu": 0.35}}
        chosen = {}
        for policy in ("heft", "heft_reserved"):
            machine = build(
                policy,
                seconds,
                processors("npu", "cpu", "gpu"),
                units={"m": 2},
                gaps={"m": {"npu": {0}}},
            )
            machine.submit("m")
            number = machine.submit("y")
            chosen[policy] = dict(placed(machine))[number]
        assert chosen == {"heft": "npu", "heft_reserved": "gpu"}


class TestShortestExpectedLatency:
    def test_the_most_demanding_request_goes_first(self) -> None:
        machine = build(
            "shortest_expected_latency",
            {"long": {"p": 0.3, "q": 0.3}, "short": {"p": 0.1, "q": 0.1}, "first": {"p": 0.05}},
            options={"window": 3},
        )
        machine.submit("first")
        machine.submit("first", arrival_s=0.0)
        machine.submit("short")
        assert placed(machine) == [(0, "p"), (2, "q")]

    def test_what_was_given_to_a_processor_stays_there(self) -> None:
        seconds = {"m": {"fast": 0.1, "slow": 0.25}}
        machine = build(
            "shortest_expected_latency",
            seconds,
            # The fast one takes ten times as long as it should.
            service_s=lambda e: 1.0 if e.processor == "fast" else e.expected_s,
        )
        numbers = [machine.submit("m") for _ in range(2)]
        machine.run()
        assert placed(machine) == [(numbers[0], "fast"), (numbers[1], "fast")]

    def test_heft_takes_it_elsewhere(self) -> None:
        machine = build(
            "heft",
            {"m": {"fast": 0.1, "slow": 0.25}},
            service_s=lambda e: 1.0 if e.processor == "fast" else e.expected_s,
        )
        numbers = [machine.submit("m") for _ in range(2)]
        machine.run()
        assert placed(machine) == [(numbers[0], "fast"), (numbers[1], "slow")]

    def test_what_was_given_to_a_lost_processor_is_planned_again(self) -> None:
        machine = build("shortest_expected_latency", {"m": {"fast": 0.1, "slow": 0.25}})
        first, second = machine.submit("m"), machine.submit("m")
        machine.post(ProcessorLost("fast", "unplugged"))
        machine.run()
        assert {p for _, p in placed(machine)[1:]} == {"slow"}
        assert machine.outcomes() == dict.fromkeys((first, second), Outcome.COMPLETED)

    def test_what_was_cancelled_leaves_its_place(self) -> None:
        machine = build("shortest_expected_latency", {"m": {"fast": 0.1, "slow": 0.25}})
        machine.submit("m")
        machine.post(Cancelled(machine.submit("m")))
        third = machine.submit("m")
        machine.run()
        assert placed(machine) == [(0, "fast"), (third, "fast")]
        assert machine.dispatcher.policy._given == []


class TestLeastSlack:
    def test_the_least_slack_goes_first_not_the_earliest_deadline(self) -> None:
        machine = build("least_slack", {"long": {"p": 0.5}, "short": {"p": 0.1}})
        machine.submit("short")
        early = machine.submit("short", deadline_s=0.9)  # slack 0.9 - 0.2
        tight = machine.submit("long", deadline_s=1.0)  # slack 1.0 - 0.6
        machine.run()
        assert [number for number, _ in placed(machine)][1:] == [tight, early]

    def test_a_request_without_deadline_grows_more_urgent(self) -> None:
        for patience_s, served in ((1.0, True), (math.inf, False)):
            machine = build("least_slack", {"m": {"p": 0.1}}, options={"patience_s": patience_s})
            machine.submit("m")
            victim = machine.submit("m")
            for at in range(60):
                machine.submit("m", arrival_s=0.05 * at, deadline_s=0.05 * at + 0.5)
            machine.run(until_s=2.5)
            assert (victim in machine.replies) is served

    def test_a_droppable_request_whose_plan_is_late_is_dropped_at_once(self) -> None:
        machine = build("least_slack", CUT, units=UNITS, gaps=GAPS)
        # 0.07 s are needed; the fastest processor alone could do the units that it can in less.
        dropped = machine.submit("m", deadline_s=0.06, on_late=OnLate.DROP)
        kept = machine.submit("m", deadline_s=0.06)
        machine.run()
        assert machine.outcomes() == {dropped: Outcome.DROPPED, kept: Outcome.COMPLETED}
        assert "no plan can meet" in machine.replies[dropped].reason

    def test_what_more_urgent_requests_reserve_drops_nothing(self) -> None:
        # Behind the first the second is late, but the first may yet fail or be cancelled.
        machine = build("least_slack", {"m": {"p": 0.3}}, options={"window": 4})
        machine.submit("m")
        for _ in range(2):
            machine.submit("m", deadline_s=0.8, on_late=OnLate.DROP)
        assert not machine.replies

    def test_waits_for_what_runs_count_when_dropping(self) -> None:
        machine = build("least_slack", {"m": {"p": 0.3}, "other": {"q": 1.0}})
        machine.submit("m")
        late = machine.submit("m", deadline_s=0.5, on_late=OnLate.DROP)
        in_time = machine.submit("m", deadline_s=0.7, on_late=OnLate.DROP)
        assert machine.outcomes() == {late: Outcome.DROPPED}
        machine.run()
        assert machine.outcomes()[in_time] is Outcome.COMPLETED


class TestTwoQueues:
    SECONDS = {"m": {"p": 0.1}}  # noqa: RUF012

    def test_what_has_a_deadline_goes_first(self) -> None:
        machine = build("two_queues", self.SECONDS)
        machine.submit("m")
        effort = machine.submit("m")
        urgent = machine.submit("m", deadline_s=9.0)
        machine.run()
        assert [number for number, _ in placed(machine)] == [0, urgent, effort]

    def test_each_queue_is_served_by_its_own_policy(self) -> None:
        seconds = {"long": {"p": 0.3}, "short": {"p": 0.1}}
        machine = build("two_queues", seconds, options={"deadline": "edf", "best_effort": "sjf"})
        machine.submit("short")
        effort = [machine.submit(model) for model in ("long", "short")]
        urgent = [machine.submit("long", deadline_s=at) for at in (8.0, 7.0)]
        machine.run()
        assert [number for number, _ in placed(machine)][1:] == [*urgent[::-1], *effort[::-1]]

    def test_best_effort_is_told_of_what_comes_with_deadlines(self) -> None:
        seconds = {
            "long": {"cpu0": 0.1, "cpu1": 0.1, "all": 0.06},
            "frame": {"cpu0": 0.01, "cpu1": 0.01, "all": 0.009},
        }
        machine = build("two_queues", seconds, CORES, options={"best_effort": "earliest_finish"})
        for at in range(5):
            machine.submit("frame", arrival_s=0.05 * at, deadline_s=0.05 * at + 0.02)
        machine.submit("long", arrival_s=0.215)
        machine.run(until_s=0.215)
        assert machine.executions[-1].processor == "cpu0"

    def test_best_effort_takes_what_is_left_free(self) -> None:
        machine = build("two_queues", {"m": {"p": 0.1}, "x": {"q": 0.1}})
        machine.submit("m", deadline_s=9.0)
        machine.submit("m", deadline_s=9.0)
        effort = machine.submit("x")
        assert placed(machine) == [(0, "p"), (effort, "q")]

    @pytest.mark.parametrize("deadline", ["least_slack", "earliest_finish", "heft"])
    @pytest.mark.parametrize("best_effort", ["heft", "fcfs", "sjf", "earliest_finish"])
    def test_best_effort_never_takes_the_units_of_a_wide_processor_one_by_one_for_ever(
        self, deadline: str, best_effort: str
    ) -> None:
        seconds = {
            "effort": {"cpu0": 0.005, "cpu1": 0.005},
            "urgent": {"cpu0": 0.1, "cpu1": 0.1, "all": 0.055},
        }
        options = {"deadline": deadline, "best_effort": best_effort}
        machine = build("two_queues", seconds, CORES, options=options)
        for at in range(80):  # both cores are just busy, and never free together
            machine.submit("effort", arrival_s=at * 0.0024)
        urgent = machine.submit("urgent", arrival_s=0.0031, deadline_s=0.2)
        machine.run()
        (step,) = [e for e in machine.executions if e.requests[0].id == urgent]
        # What ran when it came ends 5 ms later at most.
        assert (step.processor, step.started_s <= 0.0081) == ("all", True)

    def test_best_effort_runs_on_free_units_if_what_has_a_deadline_waits_elsewhere(self) -> None:
        seconds = {"urgent": {"npu": 0.1, "cpu0": 0.9}, "effort": {"cpu0": 0.1}}
        machine = build("two_queues", seconds)
        for _ in range(2):
            machine.submit("urgent", deadline_s=9.0)
        effort = machine.submit("effort")
        assert placed(machine) == [(0, "npu"), (effort, "cpu0")]

    def test_requests_of_one_model_keep_their_queue_from_step_to_step(self) -> None:
        machine = build("two_queues", CUT, units=UNITS, gaps=GAPS)
        numbers = [machine.submit("m", deadline_s=9.0 if at % 2 else math.inf) for at in range(6)]
        machine.run()
        assert machine.outcomes() == dict.fromkeys(numbers, Outcome.COMPLETED)

    def test_options_go_to_the_policies(self) -> None:
        policy = make_policy(
            "two_queues", deadline="edf", deadline_options={"patience_s": 3}, best_effort="fcfs"
        )
        assert [p.__class__.__name__ for p in policy._policies] == [
            "EarliestDeadlineFirst",
            "FirstComeFirstServed",
        ]
        assert policy._policies[0].patience_s == 3.0

    @pytest.mark.parametrize(
        ("options", "error", "complaint"),
        [
            ({"deadline": "two_queues"}, ConfigurationError, "cannot be one of its own"),
            ({"best_effort": "hefty"}, UnknownNameError, "unknown policy 'hefty'"),
            ({"deadline_options": {"win": 1}}, UnknownNameError, "option of policy 'least_slack'"),
        ],
    )
    def test_a_wrong_policy_or_option_is_named(self, options, error, complaint: str) -> None:
        with pytest.raises(error, match=complaint):
            make_policy("two_queues", **options)
