"""When a processor is set aside for its failures, and when it is tried again."""

from __future__ import annotations

import math

import pytest

from coinfer.core.dispatcher import Limits
from coinfer.core.events import ModelLoaded, ProcessorLost, ProcessorRestored
from coinfer.core.health import LONGEST_PROBE_S, Health, Outage
from coinfer.core.request import Outcome
from coinfer.machine.profile import Profile
from coinfer.policies import make_policy
from coinfer.testing.machine import VirtualMachine, processors

PATIENT = Limits(hang_min_s=math.inf)
TWO = {"m": {"npu": 0.1, "cpu": 0.5}}


class TestHealth:
    def health(self) -> Health:
        return Health(set_aside_after=3, probe_s=30.0)

    def test_a_success_forgets_failures(self) -> None:
        health = self.health()
        assert not health.failed("p", 0.0)
        assert not health.failed("p", 1.0)
        health.succeeded("p")
        assert not health.failed("p", 2.0)
        assert not health.failed("p", 3.0)
        assert health.failed("p", 4.0)

    def test_the_wait_doubles_up_to_the_longest(self) -> None:
        health = Health(set_aside_after=1, probe_s=30.0)
        now, waits = 0.0, []
        for _ in range(7):
            assert health.failed("p", now)
            waits.append(health.next_s - now)
            now = health.next_s
            assert health.due(now) == ["p"]
            assert health.next_s == math.inf
        assert waits == [30.0, 60.0, 120.0, 240.0, 480.0, LONGEST_PROBE_S, LONGEST_PROBE_S]

    def test_a_longer_first_wait_than_the_longest_is_kept(self) -> None:
        health = Health(set_aside_after=1, probe_s=3600.0)
        health.failed("p", 0.0)
        assert health.due(3600.0) == ["p"]
        health.failed("p", 3600.0)
        assert health.next_s == 7200.0

    def test_success_on_probation_clears(self) -> None:
        health = Health(set_aside_after=2, probe_s=30.0)
        health.failed("p", 0.0)
        health.failed("p", 0.0)
        health.due(30.0)
        health.succeeded("p")
        assert not health.records
        assert not health.failed("p", 40.0)

    def test_processors_are_tried_again_each_at_its_time(self) -> None:
        health = Health(set_aside_after=1, probe_s=30.0)
        health.failed("p", 0.0)
        health.failed("q", 10.0)
        assert health.due(29.0) == []
        assert health.due(30.0) == ["p"]
        assert health.next_s == 40.0

    def test_what_somebody_else_looks_after_is_forgotten(self) -> None:
        health = Health(set_aside_after=1, probe_s=30.0)
        health.failed("p", 0.0)
        health.forget("p")
        assert (health.next_s, health.due(99.0)) == (math.inf, [])

    def test_a_failure_taken_back_in_time_does_not_count(self) -> None:
        health = self.health()
        health.failed("p", 0.0)
        health.failed("p", 1.0)
        assert not health.excused("p")
        assert not health.failed("p", 2.0)
        assert health.failed("p", 3.0)

    def test_what_was_set_aside_for_too_little_is_put_back_with_a_clean_record(self) -> None:
        health = self.health()
        for at in range(4):
            health.failed("p", float(at))
        assert not health.excused("p")  # three are left, the limit
        assert health.aside() == ["p"]
        assert health.excused("p")
        assert (health.aside(), health.next_s, health.records) == ([], math.inf, {})

    def test_a_failure_of_nobody_cannot_be_taken_back(self) -> None:
        assert not self.health().excused("p")


def machine(**options) -> VirtualMachine:
    options = {"limits": PATIENT, **options}
    return VirtualMachine(
        processors("npu", "cpu"), make_policy("sjf"), options.pop("seconds", TWO), **options
    )


def fail_on(machine: VirtualMachine, name: str) -> None:
    (number,) = [e.id for e in machine.running.values() if e.processor == name]
    machine.fail(number)


def in_service(machine: VirtualMachine) -> list[str]:
    return list(machine.dispatcher.view.processors)


def fail_three_times(machine: VirtualMachine, times: int = 3) -> list[int]:
    """Let three requests fail on the npu; the cpu does each of them."""
    numbers = []
    for _ in range(times):
        numbers.append(machine.submit("m"))
        fail_on(machine, "npu")
        machine.run()
    return numbers


class TestSetAside:
    def test_after_three_failures_in_a_row_a_processor_is_set_aside(self) -> None:
        subject = machine()
        numbers = fail_three_times(subject, times=2)
        assert in_service(subject) == ["npu", "cpu"]
        numbers += fail_three_times(subject, times=1)
        assert in_service(subject) == ["cpu"]
        assert {subject.outcomes()[n] for n in numbers} == {Outcome.COMPLETED}

    def test_a_success_between_counts(self) -> None:
        subject = machine()
        for _ in range(4):
            for fails in (True, True, False):
                subject.submit("m")
                if fails:
                    fail_on(subject, "npu")
                subject.run()
        assert in_service(subject) == ["npu", "cpu"]

    def test_it_is_tried_again_after_a_while(self) -> None:
        subject = machine()
        fail_three_times(subject)
        aside_s = subject.executions[-2].started_s  # its last failure was at its start
        while in_service(subject) == ["cpu"]:
            subject.fire_timer()
        assert subject.now == pytest.approx(aside_s + 30.0, abs=1.1)
        number = subject.submit("m")
        assert subject.executions[-1].processor == "npu"
        subject.run()
        assert subject.outcomes()[number] is Outcome.COMPLETED
        assert not subject.dispatcher._health.records

    def test_one_failure_on_probation_sets_it_aside_for_twice_as_long(self) -> None:
        subject = machine()
        fail_three_times(subject)
        subject.fire_timer()
        assert in_service(subject) == ["npu", "cpu"]
        subject.submit("m")
        fail_on(subject, "npu")
        assert in_service(subject) == ["cpu"]
        before_s = subject.now
        subject.run()
        subject.fire_timer()
        assert in_service(subject) == ["npu", "cpu"]
        assert subject.now == before_s + 60.0

    def test_what_waited_for_it_alone_is_answered(self) -> None:
        subject = machine()
        fail_three_times(subject)
        subject.fire_timer()
        subject.submit("m")
        waiting = subject.submit("m")
        fail_on(subject, "cpu")  # it is left to the npu
        fail_on(subject, "npu")
        assert in_service(subject) == ["cpu"]
        assert subject.outcomes()[waiting] is Outcome.FAILED
        assert "no processor in service" in subject.replies[waiting].reason

    def test_the_last_processor_in_service_is_kept(self) -> None:
        subject = machine()
        subject.post(ProcessorLost("cpu", "unplugged"))
        for _ in range(9):
            subject.submit("m")
            fail_on(subject, "npu")
        assert in_service(subject) == ["npu"]

    def test_a_processor_that_alone_can_run_some_model_is_kept(self) -> None:
        subject = machine(seconds={**TWO, "only": {"npu": 0.2}})
        fail_three_times(subject, times=9)
        assert in_service(subject) == ["npu", "cpu"]
        number = subject.submit("only")
        subject.run()
        assert subject.outcomes()[number] is Outcome.COMPLETED

    def test_bad_requests_of_one_model_do_not_close_the_only_processor_of_another(self) -> None:
        subject = machine(seconds={"bad": {"npu": 0.1}, "good": {"npu": 0.1}, "x": {"cpu": 0.1}})
        for _ in range(5):
            subject.submit("bad")
            fail_on(subject, "npu")
        number = subject.submit("good")
        subject.run()
        assert subject.outcomes()[number] is Outcome.COMPLETED

    def test_a_processor_without_which_a_cut_model_has_no_way_is_kept(self) -> None:
        subject = VirtualMachine(
            processors("npu", "cpu"),
            make_policy("sjf"),
            {**TWO, "cut": {"npu": 0.03, "cpu": 0.3}},
            units={"cut": 3},
            gaps={"cut": {"cpu": {1}}},
            limits=PATIENT,
        )
        fail_three_times(subject, times=9)
        assert in_service(subject) == ["npu", "cpu"]

    def test_it_comes_back_as_soon_as_a_model_needs_it(self) -> None:
        subject = machine()
        fail_three_times(subject)
        assert in_service(subject) == ["cpu"]
        only = Profile.from_seconds({"only": {"npu": 0.2}})
        subject.post(ModelLoaded("only", 1, only))
        assert in_service(subject) == ["npu", "cpu"]

    def test_it_comes_back_as_soon_as_what_took_its_place_is_lost(self) -> None:
        subject = VirtualMachine(
            processors("npu", "gpu", "cpu"),
            make_policy("sjf"),
            {"m": {"npu": 0.1, "gpu": 0.2}, "x": {"cpu": 0.1}},
            limits=PATIENT,
        )
        fail_three_times(subject)
        assert in_service(subject) == ["gpu", "cpu"]
        subject.post(ProcessorLost("gpu", "unplugged"))
        assert in_service(subject) == ["npu", "cpu"]

    def test_it_comes_back_at_once_if_its_requests_fail_elsewhere_too(self) -> None:
        subject = machine(seconds={**TWO, "broken": {"npu": 0.1, "cpu": 0.1}, "long": {"cpu": 5.0}})
        subject.submit("long")
        broken = [subject.submit("broken") for _ in range(3)]
        for _ in broken:  # the cpu is busy: none of them can be tried there yet
            fail_on(subject, "npu")
        assert in_service(subject) == ["cpu"]
        subject.step()  # the long one ends
        fail_on(subject, "cpu")
        assert in_service(subject) == ["npu", "cpu"]
        assert not subject.dispatcher._health.records
        while subject.running:
            subject.fail(min(subject.running))
        assert {subject.outcomes()[n] for n in broken} == {Outcome.FAILED}
        assert in_service(subject) == ["npu", "cpu"]
        number = subject.submit("m")
        subject.run()
        assert subject.outcomes()[number] is Outcome.COMPLETED

    def test_if_the_last_one_is_lost_those_set_aside_are_tried_at_once(self) -> None:
        subject = machine()
        fail_three_times(subject)
        number = subject.submit("m")
        assert subject.executions[-1].processor == "cpu"
        subject.post(ProcessorLost("cpu", "unplugged"))
        assert in_service(subject) == ["npu"]
        subject.run()
        assert subject.outcomes()[number] is Outcome.COMPLETED

    def test_requests_that_fail_everywhere_set_no_processor_aside(self) -> None:
        subject = machine(seconds={**TWO, "broken": {"npu": 0.1, "cpu": 0.1}})
        for _ in range(12):
            number = subject.submit("broken")
            while subject.running:
                subject.fail(min(subject.running))
            assert subject.outcomes()[number] is Outcome.FAILED
        assert in_service(subject) == ["npu", "cpu"]

    def test_none_is_set_aside_if_the_limit_says_so(self) -> None:
        subject = machine(limits=Limits(hang_min_s=math.inf, set_aside_after=math.inf))
        for _ in range(4):
            fail_three_times(subject)
        assert in_service(subject) == ["npu", "cpu"]

    def test_a_processor_that_is_lost_meanwhile_is_not_tried_again(self) -> None:
        subject = machine()
        fail_three_times(subject)
        subject.post(ProcessorLost("npu", "unplugged"))
        subject.now += 100.0
        subject.fire_timer()
        assert in_service(subject) == ["cpu"]
        subject.post(ProcessorRestored("npu"))
        assert in_service(subject) == ["npu", "cpu"]

    def test_a_request_goes_on_from_the_last_boundary_it_reached(self) -> None:
        subject = VirtualMachine(
            processors("npu", "cpu"),
            make_policy("heft"),
            {"m": {"npu": 0.03, "cpu": 0.3}},
            units={"m": 3},
            gaps={"m": {"npu": {1}}},
            limits=PATIENT,
        )
        number = subject.submit("m")
        subject.step()
        subject.step()
        assert [(e.processor, e.span) for e in subject.executions] == [
            ("npu", (0, 0)),
            ("cpu", (1, 1)),
            ("npu", (2, 2)),
        ]
        fail_on(subject, "npu")
        assert (subject.executions[-1].processor, subject.executions[-1].span) == ("cpu", (2, 2))
        subject.run()
        assert subject.outcomes() == {number: Outcome.COMPLETED}


class TestOutages:
    def test_they_are_listed_with_the_last_reason_and_whether_they_are_over(self) -> None:
        limits = Limits(hang_min_s=math.inf, set_aside_after=1, probe_s=30.0)
        machine = VirtualMachine(processors("npu", "cpu"), make_policy("sjf"), TWO, limits=limits)
        assert machine.dispatcher.outages == []
        machine.submit("m")
        machine.fail(0, "overheated")
        assert machine.dispatcher.outages == [Outage("npu", 1, "overheated", is_over=False)]
        machine.run()
        machine.now = 31.0
        machine.fire_timer()
        assert machine.dispatcher.outages == [Outage("npu", 1, "overheated", is_over=True)]
        machine.lose("npu", "unplugged")
        machine.lose("npu", "unplugged again")  # it was out already
        assert machine.dispatcher.outages == [Outage("npu", 2, "unplugged", is_over=False)]

    def test_a_failure_that_sets_nothing_aside_is_no_outage(self) -> None:
        machine = VirtualMachine(processors("npu", "cpu"), make_policy("sjf"), TWO, limits=PATIENT)
        machine.submit("m")
        machine.fail(0)
        machine.run()
        assert machine.dispatcher.outages == []

    @pytest.mark.parametrize(
        ("outage", "sentence"),
        [
            (
                Outage("npu", 1, "hot", is_over=False),
                "processor 'npu' was set aside once: hot; it stayed out until the end",
            ),
            (
                Outage("npu", 3, "hot", is_over=True),
                "processor 'npu' was set aside 3 times: hot; it was tried again",
            ),
        ],
    )
    def test_a_person_is_told_in_a_sentence(self, outage: Outage, sentence: str) -> None:
        assert str(outage) == sentence
