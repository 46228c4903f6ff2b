"""Urgent requests preempt on express processors, where waiting would make them late."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from coinfer.core.commands import Execution
from coinfer.core.dispatcher import Limits
from coinfer.core.events import ProcessorRestored
from coinfer.core.policy import Policy, Start
from coinfer.core.preemption import MARGIN
from coinfer.core.request import OnLate, Outcome, Request
from coinfer.core.view import View
from coinfer.errors import ConfigurationError, PolicyError
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span
from coinfer.policies import make_policy
from coinfer.testing.machine import VirtualMachine, processors

SECONDS = {
    "urgent": {"cpu0": 0.01, "cpu1": 0.01},
    "heavy": {"cpu0": 0.1, "cpu1": 0.1},
}
DEADLINE_S = 0.033


def expected(execution: Execution) -> float:
    return execution.expected_s


def stuck_on(processor: str) -> Callable[[Execution], float]:
    return lambda execution: 0.02 if execution.processor == processor else execution.expected_s


def express_on(*of: Processor) -> list[Processor]:
    return [
        dataclasses.replace(p, name=f"{p.name}+", units=frozenset({f"{p.name}+"}), overlays=p.units)
        for p in of
    ]


def machine(
    *names: str,
    policy: Policy | None = None,
    seconds: Mapping[str, Mapping[str, float]] = SECONDS,
    service_s: Callable[[Execution], float] = expected,
    limits: Limits = Limits(),
    units: Mapping[str, int] | None = None,
    gaps: Mapping[str, Mapping[str, Sequence[int]]] | None = None,
) -> VirtualMachine:
    ordinary = processors(*(names or ("cpu0",)))
    return VirtualMachine(
        [*ordinary, *express_on(*ordinary)],
        policy or make_policy("fcfs"),
        seconds,
        service_s=service_s,
        limits=limits,
        units=units or {},
        gaps=gaps or {},
    )


def started(vm: VirtualMachine) -> list[tuple[str, str]]:
    return [(execution.model, execution.processor) for execution in vm.executions]


def urgent(vm: VirtualMachine, in_s: float = DEADLINE_S, **fields: object) -> int:
    return vm.submit("urgent", deadline_s=vm.now + in_s, **fields)


class Idle(Policy):
    """Starts best-effort requests only: the policy that needs the rule most."""

    def rank(self, request: Request) -> float:
        return request.arrival_s

    def decide(self, view: View) -> Iterator[Start]:
        for lane, able in view.startable():
            if lane.model == "heavy":
                yield Start(able[0], (lane.head,))


class TestTheRule:
    def test_what_would_be_late_by_waiting_starts_at_once(self) -> None:
        vm = machine()
        vm.submit("heavy")
        number = urgent(vm)
        assert started(vm) == [("heavy", "cpu0"), ("urgent", "cpu0+")]
        vm.run()
        assert vm.finished_s[number] == pytest.approx(0.01)

    def test_what_only_gets_on_later_does_not_keep_it_waiting(self) -> None:
        vm = machine()
        vm.submit("heavy")
        urgent(vm, 1.0)
        assert started(vm) == [("heavy", "cpu0"), ("urgent", "cpu0+")]

    @pytest.mark.parametrize("deadline_s", [0.0045, 1.0])
    def test_the_end_of_a_short_run_is_waited_for(self, deadline_s: float) -> None:
        seconds = {"urgent": {"cpu0": 0.003}, "heavy": {"cpu0": 0.0029}}
        vm = machine(seconds=seconds)
        vm.submit("heavy")
        urgent(vm, deadline_s)
        vm.run()
        assert started(vm) == [("heavy", "cpu0"), ("urgent", "cpu0")]

    def test_the_end_of_a_longer_run_is_not(self) -> None:
        seconds = {"urgent": {"cpu0": 0.003}, "heavy": {"cpu0": 0.0031}}
        vm = machine(seconds=seconds)
        vm.submit("heavy")
        urgent(vm, 1.0)
        assert started(vm) == [("heavy", "cpu0"), ("urgent", "cpu0+")]

    def test_a_short_run_on_a_gpu_is_not_waited_for_either(self) -> None:
        (ordinary,) = processors("gpu0")
        ordinary = dataclasses.replace(ordinary, device="CUDA:0")
        seconds = {"urgent": {"gpu0": 0.001}, "heavy": {"gpu0": 0.0029}}
        everyone = [ordinary, *express_on(ordinary)]
        vm = VirtualMachine(everyone, make_policy("fcfs"), seconds, service_s=expected)
        vm.submit("heavy")
        urgent(vm, 1.0)
        assert started(vm) == [("heavy", "gpu0"), ("urgent", "gpu0+")]
        vm.run()

    def test_a_short_run_that_should_have_ended_long_ago_is_preempted(self) -> None:
        seconds = {"urgent": {"cpu0": 0.003}, "heavy": {"cpu0": 0.001}}
        vm = machine(seconds=seconds, service_s=lambda e: 1.0 if e.model == "heavy" else 0.003)
        vm.submit("heavy")
        number = urgent(vm)
        assert started(vm) == [("heavy", "cpu0")]
        vm.run()
        assert started(vm) == [("heavy", "cpu0"), ("urgent", "cpu0+")]
        assert vm.finished_s[number] == pytest.approx(0.033)

    @pytest.mark.parametrize(
        ("seconds", "in_s", "at"),
        [
            (0.0004, DEADLINE_S, ["cpu0+", "cpu0+", "cpu0+"]),
            (0.0004, 0.001, ["cpu0+", "cpu1+", "cpu0+"]),  # the second would be too late
            (0.0006, DEADLINE_S, ["cpu0+", "cpu1+", "cpu0+"]),  # no longer brief
        ],
    )
    def test_brief_ones_take_turns_on_one_core_while_there_is_time(
        self, seconds: float, in_s: float, at: list[str]
    ) -> None:
        vm = machine(
            "cpu0", "cpu1", seconds={**SECONDS, "urgent": {"cpu0": seconds, "cpu1": seconds}}
        )
        vm.submit("heavy")
        vm.submit("heavy")
        numbers = [urgent(vm, in_s) for _ in at]
        vm.run(until_s=0.05)
        assert [processor for model, processor in started(vm) if model == "urgent"] == at
        assert all(vm.finished_s[number] <= 3.1 * seconds for number in numbers)

    def test_nobody_waits_for_a_brief_one_that_should_have_ended(self) -> None:
        seconds = {"heavy": SECONDS["heavy"], "urgent": {"cpu0": 0.0004, "cpu1": 0.0004}}
        vm = machine("cpu0", "cpu1", seconds=seconds, service_s=stuck_on("cpu0+"))
        vm.submit("heavy")
        vm.submit("heavy")
        urgent(vm)
        vm.run(until_s=0.001)
        urgent(vm)
        assert started(vm)[2:] == [("urgent", "cpu0+"), ("urgent", "cpu1+")]
        vm.run()

    def test_who_is_late_in_any_case_makes_nobody_else_late(self) -> None:
        vm = machine()
        vm.submit("heavy", deadline_s=0.11)
        urgent(vm, 0.005)
        vm.run()
        assert started(vm) == [("heavy", "cpu0"), ("urgent", "cpu0")]

    def test_what_has_a_deadline_goes_on_while_there_is_time_to_wait(self) -> None:
        vm = machine()
        vm.submit("heavy", deadline_s=2.0)
        urgent(vm, 1.0)
        vm.run()
        assert started(vm) == [("heavy", "cpu0"), ("urgent", "cpu0")]

    def test_a_long_one_waits_where_another_urgent_model_could_be_late_by_it(self) -> None:
        seconds = {**SECONDS, "long": {"cpu0": 0.05}}
        vm = machine(seconds=seconds)
        vm.submit("heavy")
        urgent(vm)  # has 23 ms to spare
        vm.step()
        vm.submit("long", deadline_s=vm.now + 1.0)
        assert started(vm) == [("heavy", "cpu0"), ("urgent", "cpu0+")]
        vm.run()
        assert ("long", "cpu0") in started(vm)

    def test_a_higher_priority_needs_no_deadline(self) -> None:
        vm = machine()
        vm.submit("heavy")
        number = vm.submit("urgent", priority=1)
        assert started(vm) == [("heavy", "cpu0"), ("urgent", "cpu0+")]
        vm.run()
        assert vm.finished_s[number] == pytest.approx(0.01)

    def test_a_lower_priority_makes_others_urgent(self) -> None:
        vm = machine()
        vm.submit("heavy", priority=-1)
        vm.submit("urgent")
        assert started(vm) == [("heavy", "cpu0"), ("urgent", "cpu0+")]

    def test_a_deadline_does_not_preempt_a_higher_priority(self) -> None:
        vm = machine()
        vm.submit("heavy", priority=1)
        urgent(vm)
        assert started(vm) == [("heavy", "cpu0")]

    def test_a_free_processor_is_the_policys(self) -> None:
        vm = machine("cpu0", "cpu1")
        vm.submit("heavy")
        urgent(vm)
        assert started(vm) == [("heavy", "cpu0"), ("urgent", "cpu1")]

    def test_a_request_without_a_deadline_never_preempts(self) -> None:
        vm = machine()
        for _ in range(3):
            vm.submit("heavy")
        vm.run()
        assert {name for _, name in started(vm)} == {"cpu0"}

    def test_what_the_policy_does_not_start_preempts_at_the_last_moment(self) -> None:
        vm = machine(policy=Idle())
        number = urgent(vm)
        assert not vm.executions
        vm.run()
        assert started(vm) == [("urgent", "cpu0+")]
        assert vm.executions[0].started_s == pytest.approx((1 - MARGIN) * DEADLINE_S - 0.01)
        assert vm.finished_s[number] < DEADLINE_S

    def test_what_waits_for_an_execution_that_overruns_preempts_in_time(self) -> None:
        seconds = {**SECONDS, "heavy": {"cpu0": 0.005}}
        vm = machine(seconds=seconds, service_s=lambda e: 5.0 if e.model == "heavy" else 0.01)
        vm.submit("heavy", deadline_s=1.0)
        number = urgent(vm)
        assert started(vm) == [("heavy", "cpu0")]
        vm.run()
        assert started(vm)[1] == ("urgent", "cpu0+")
        assert vm.finished_s[number] < DEADLINE_S

    def test_the_earliest_deadline_goes_first(self) -> None:
        vm = machine(policy=Idle())
        urgent(vm, 10.0)
        with_less = urgent(vm, 5.0)
        vm.submit("heavy")
        vm.now = 9.5  # both are late now, and the first event shows it
        vm.submit("heavy")
        assert [e.requests[0].id for e in vm.executions if e.processor == "cpu0+"] == [with_less]

    def test_those_that_go_before_count_as_waiting(self) -> None:
        seconds = {**SECONDS, "heavy": {"cpu0": 0.005}}
        vm = machine(seconds=seconds)
        vm.submit("heavy", deadline_s=1.0)
        first, second = urgent(vm), urgent(vm)
        assert [e.requests[0].id for e in vm.executions[1:]] == [second]
        vm.run()
        assert vm.finished_s[first] < DEADLINE_S

    def test_nothing_more_urgent_is_held_up(self) -> None:
        vm = machine()
        vm.submit("heavy", deadline_s=0.02)
        urgent(vm)
        assert started(vm) == [("heavy", "cpu0")]

    def test_what_is_due_last_is_held_up(self) -> None:
        vm = machine("cpu0", "cpu1")
        vm.submit("heavy", deadline_s=0.2)
        vm.submit("heavy")
        urgent(vm)
        assert started(vm)[2] == ("urgent", "cpu1+")

    def test_what_was_held_up_before_is_spared(self) -> None:
        vm = machine("cpu0", "cpu1")
        vm.submit("heavy")
        vm.submit("heavy")
        urgent(vm)
        vm.step()
        urgent(vm)
        assert [name for _, name in started(vm)] == ["cpu0", "cpu1", "cpu0+", "cpu1+"]

    @pytest.mark.parametrize(("on_late", "runs"), [(OnLate.RUN, True), (OnLate.DROP, False)])
    def test_what_would_be_late_even_so_starts_only_if_it_may_run_late(
        self, on_late: OnLate, *, runs: bool
    ) -> None:
        vm = machine()
        vm.submit("heavy")
        number = urgent(vm, 0.005, on_late=on_late)
        assert (("urgent", "cpu0+") in started(vm)) == runs
        vm.run()
        assert vm.replies[number].outcome is (Outcome.COMPLETED if runs else Outcome.DROPPED)

    def test_one_at_a_time(self) -> None:
        vm = machine()
        vm.submit("heavy")
        for _ in range(3):
            urgent(vm)
        assert [name for _, name in started(vm)] == ["cpu0", "cpu0+"]


class TestWhatIsHeldUp:
    def test_it_is_expected_to_end_later(self) -> None:
        vm = machine()
        vm.submit("heavy")
        vm.now = 0.02
        urgent(vm)
        free_at = vm.dispatcher.view.units_free_at()
        assert free_at == {"cpu0": pytest.approx(0.1 + 0.01, rel=0.01)}
        vm.step()
        assert vm.dispatcher.view.units_free_at() == {"cpu0": pytest.approx(0.11, rel=0.01)}

    def test_estimates_do_not_learn_from_it(self) -> None:
        vm = machine(service_s=lambda e: 0.11 if e.model == "heavy" else 0.01)
        vm.submit("heavy")
        urgent(vm)
        vm.run()
        view = vm.dispatcher.view
        assert view.span_s("heavy", "cpu0", Span()) == pytest.approx(0.1, rel=1e-3)

    def test_what_was_mostly_held_up_teaches_nothing(self) -> None:
        vm = machine(service_s=lambda e: 0.06 if e.model == "heavy" else 0.05)
        vm.submit("heavy")
        urgent(vm)
        vm.run()
        assert vm.dispatcher.view.span_s("heavy", "cpu0", Span()) == 0.1

    def test_what_starts_below_is_held_up_too(self) -> None:
        vm = machine()
        first = vm.submit("heavy")
        urgent(vm)
        vm.finish(0)
        assert vm.replies[first].outcome is Outcome.COMPLETED
        vm.submit("heavy")
        end_s = vm.executions[2].expected_end_s
        free_at = vm.dispatcher.view.units_free_at()
        assert free_at == {"cpu0": pytest.approx(end_s + 0.01, rel=0.01)}

    def test_the_watchdog_waits_longer(self) -> None:
        def service_s(execution: Execution) -> float:
            return math.inf if execution.model == "heavy" else 0.5

        vm = machine(service_s=service_s, limits=Limits(hang_factor=2.0, hang_min_s=0.2))
        vm.submit("heavy")
        vm.now = 0.05
        urgent(vm)
        vm.now = 0.22
        vm.fire_timer()
        assert 0 in vm.running, "given up although it was held up"
        vm.now = 0.26  # what overlaid it hangs, too: it is given up
        vm.fire_timer()
        assert list(vm.running) == [0]
        vm.now = 0.5
        vm.fire_timer()
        assert 0 not in vm.running


class TestFaults:
    def test_a_request_that_failed_there_is_not_tried_on_its_twin(self) -> None:
        vm = machine("cpu0", "cpu1")
        vm.submit("heavy")
        vm.submit("heavy")
        number = urgent(vm)
        vm.fail(2)
        assert started(vm)[2:] == [("urgent", "cpu0+"), ("urgent", "cpu1+")]
        vm.fail(3)
        assert vm.replies[number].outcome is Outcome.FAILED

    def test_one_that_failed_below_is_not_tried_on_top(self) -> None:
        vm = machine()
        number = urgent(vm)
        vm.fail(0)
        assert vm.replies[number].outcome is Outcome.FAILED
        assert started(vm) == [("urgent", "cpu0")]

    def test_a_lost_one_is_not_used_until_it_is_back(self) -> None:
        vm = machine()
        vm.lose("cpu0+")
        vm.submit("heavy")
        urgent(vm)
        assert started(vm) == [("heavy", "cpu0")]
        vm.post(ProcessorRestored("cpu0+"))
        assert started(vm)[1] == ("urgent", "cpu0+")

    def test_losing_it_gives_what_it_ran_to_others(self) -> None:
        vm = machine("cpu0", "cpu1")
        vm.submit("heavy")
        vm.submit("heavy")
        number = urgent(vm)
        vm.lose("cpu0+")
        assert started(vm)[-1] == ("urgent", "cpu1+")
        vm.run()
        assert vm.replies[number].outcome is Outcome.COMPLETED

    def test_failures_set_it_aside_although_one_ordinary_processor_is_left(self) -> None:
        vm = machine(limits=Limits(set_aside_after=1, probe_s=0.05))
        vm.submit("heavy")
        urgent(vm)
        vm.fail(1)
        urgent(vm)
        assert len(vm.executions) == 2
        vm.now = 0.05  # it is tried again
        vm.fire_timer()
        assert started(vm)[2] == ("urgent", "cpu0+")


class TestCutModels:
    def test_it_runs_to_the_end_of_the_model(self) -> None:
        vm = machine(units={"urgent": 3})
        vm.submit("heavy")
        urgent(vm)
        assert vm.executions[1].span == Span(0, 2)

    def test_where_it_cannot_it_runs_as_far_as_its_twin_would(self) -> None:
        seconds = {"urgent": {"cpu0": 0.01, "npu": 0.001}, "heavy": {"cpu0": 0.1}}
        ordinary = processors("cpu0", "npu")
        vm = VirtualMachine(
            [*ordinary, *express_on(ordinary[0])],
            make_policy("fcfs"),
            seconds,
            units={"urgent": 3},
            gaps={"urgent": {"cpu0": [2], "npu": [0, 1]}},
        )
        vm.submit("heavy")
        number = urgent(vm)
        vm.run()
        steps = [(e.processor, e.span) for e in vm.executions[1:]]
        assert steps == [("cpu0+", Span(0, 1)), ("npu", Span(2, 2))]
        assert vm.finished_s[number] < DEADLINE_S


class TestPoliciesDoNotSeeThem:
    def test_in_the_view(self) -> None:
        vm = machine("cpu0", "cpu1")
        view = vm.dispatcher.view
        vm.submit("heavy")
        vm.submit("heavy")
        number = urgent(vm)
        assert list(view.processors) == list(view.all_processors) == ["cpu0", "cpu1"]
        assert view.idle() == []
        assert {e.processor for e in view.running()} == {"cpu0", "cpu1"}
        assert view.is_running(vm.executions[2].id)
        assert view.entrance("urgent").seconds.keys() == {"cpu0", "cpu1"}
        assert view.lookahead().ready_s.keys() == {"cpu0", "cpu1"}
        assert view.is_unanswered(number)

    def test_nor_may_they_use_them(self) -> None:
        class Bold(Idle):
            def decide(self, view: View) -> Iterator[Start]:
                for lane in view.lanes():
                    yield Start("cpu0+", (lane.head,))

        vm = machine(policy=Bold())
        vm.submit("heavy")
        assert isinstance(vm.dispatcher.fault, PolicyError)


def test_an_express_processor_must_stand_on_another() -> None:
    (cpu,) = processors("cpu0")
    (express,) = express_on(cpu)
    with pytest.raises(ConfigurationError, match=r"'cpu0\+' stands on no other"):
        machine_of(dataclasses.replace(cpu, precision="bf16"), express)
    with pytest.raises(ConfigurationError, match="occupy the same unit"):
        machine_of(cpu, *processors("cpu0+"), dataclasses.replace(express, name="express"))


def machine_of(*everyone: Processor) -> VirtualMachine:
    return VirtualMachine(everyone, make_policy("fcfs"), {})
