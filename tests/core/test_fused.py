"""Fused variants: whose requests share a run, what it costs where few wait, and what goes wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from coinfer.core.commands import Execution
from coinfer.core.dispatcher import Limits
from coinfer.core.events import Cancelled, FusedLoaded, ModelLoaded, ModelUnloaded
from coinfer.core.fusing import MOST_FAILURES
from coinfer.core.policy import Decision, Policy, Start, WaitUntil
from coinfer.core.request import OnLate, Outcome, Request
from coinfer.core.view import View
from coinfer.machine.batching import Batching
from coinfer.machine.profile import Profile
from coinfer.policies import make_policy, policy_names
from coinfer.replay.codec import decode_event, encode_event
from coinfer.testing.machine import VirtualMachine, processors, profile

TENANTS = ("a", "b", "c", "d")
OPTIONS: dict[str, dict[str, Any]] = {"fixed": {"assignment": dict.fromkeys(TENANTS, "cpu0")}}
FREE = Limits(max_blocking_s=math.inf)


def machine(
    policy: str = "fcfs",
    *names: str,
    fused_s: float = 2.0,
    tenants: tuple[str, ...] = TENANTS,
    more: dict[str, Any] | None = None,
    **options: Any,
) -> VirtualMachine:
    """Tenants of a second each, fused to one run of `fused_s`; n takes a second and is in none."""
    at = names or ("cpu0",)
    named = dict(OPTIONS.get(policy, {}))
    if policy == "fixed":
        named["assignment"] = {**named["assignment"], "n": "cpu0"}
    return VirtualMachine(
        processors(*at),
        make_policy(policy, **named),
        {model: dict.fromkeys(at, 1.0) for model in (*tenants, "n")},
        fused={"all": (tenants, dict.fromkeys(at, fused_s)), **(more or {})},
        **options,
    )


def runs(subject: VirtualMachine) -> list[tuple[str, str]]:
    """Return what was run, and of which models: the letters sorted."""
    return [
        (e.variant if e.is_fused else "", "".join(sorted(r.model for r in e.requests)))
        for e in subject.executions
    ]


class TestWhoRides:
    @pytest.mark.parametrize("policy", policy_names())
    def test_the_first_of_each_member_share_a_run(self, policy: str) -> None:
        subject = machine(policy)
        subject.submit("n")
        for model in "abcdab":
            subject.submit(model)
        subject.run()
        assert subject.dispatcher.fault is None
        assert runs(subject)[:2] == [("", "n"), ("all", "abcd")]
        assert sorted(runs(subject)[2:]) == [("", "a"), ("", "b")]
        assert set(subject.outcomes().values()) == {Outcome.COMPLETED}
        assert subject.now == pytest.approx(5.0)

    def test_where_much_waits_a_small_gain_is_enough(self) -> None:
        subject = machine(fused_s=3.4)
        for model in "n" + "abcd" * 4:
            subject.submit(model)
        subject.run()
        assert runs(subject)[1:3] == [("all", "abcd")] * 2
        assert runs(subject)[3:] == [("", model) for model in "abcd" * 2]

    def test_what_slows_it_down_is_held_against_runs_apart_as_well(self) -> None:
        subject = machine(service_s=lambda each: 4.0 if each.is_fused else 1.0)
        for _ in range(40):
            for model in TENANTS:
                subject.submit(model, is_followed=model != TENANTS[-1])
            subject.run()
        assert runs(subject) == [("all", "abcd")] * 40

    def test_one_that_really_takes_twice_as_long_as_runs_apart_is_given_up(self) -> None:
        subject = machine(service_s=lambda each: 8.0 if each.is_fused else 1.0)
        for _ in range(60):
            for model in TENANTS:
                subject.submit(model, is_followed=model != TENANTS[-1])
            subject.run()
        assert runs(subject)[-4:] == [("", model) for model in TENANTS]

    def test_one_given_up_is_used_again_once_runs_apart_are_as_slow(self) -> None:
        subject = machine(service_s=lambda each: 8.0 if each.is_fused else 4.0)
        for _ in range(60):
            for model in TENANTS:
                subject.submit(model, is_followed=model != TENANTS[-1])
            subject.run()
        assert runs(subject)[-1] == ("all", "abcd")

    def test_few_share_it_where_that_is_cheaper_even_padded(self) -> None:
        subject = machine()
        for model in "nabc":
            subject.submit(model)
        subject.run()
        assert runs(subject) == [("", "n"), ("all", "abc")]

    def test_too_few_for_what_the_run_takes_go_alone(self) -> None:
        subject = machine(fused_s=2.0)
        for model in "nab":
            subject.submit(model)
        subject.run()
        assert runs(subject) == [("", "n"), ("", "a"), ("", "b")]

    @pytest.mark.parametrize(
        ("fused_s", "handover_s", "riders"),
        # Two alone take 2 s and two hand-overs, together what the run takes and one; a quarter of
        # that must be saved.
        [(1.7, 0.0, ["a", "b"]), (1.7, 0.4, ["ab"]), (2.5, 1.5, ["a", "b"]), (2.5, 1.8, ["ab"])],
    )
    def test_what_handing_over_takes_counts(
        self, fused_s: float, handover_s: float, riders: list[str]
    ) -> None:
        subject = machine(fused_s=fused_s, handover_s=handover_s)
        for model in "nab":
            subject.submit(model)
        subject.run()
        assert [models for _, models in runs(subject)] == ["n", *riders]

    @pytest.mark.parametrize(("rounds", "is_shared"), [(1, False), (2, True)])
    def test_the_other_processors_must_have_enough_to_do(
        self, rounds: int, is_shared: bool
    ) -> None:
        """Four apart on two processors are done sooner than in a run of 2.5 s on one."""
        subject = machine("fcfs", "cpu0", "cpu1", fused_s=2.5)
        subject.submit("n")
        subject.submit("n", arrival_s=0.5)
        for model in "abcd" * rounds:
            subject.submit(model, arrival_s=0.6)
        subject.run()
        assert any(variant for variant, _ in runs(subject)) is is_shared
        assert subject.now == (3.5 if rounds == 1 else 4.0)

    @pytest.mark.parametrize(("policy", "least"), [("edf", 140), ("earliest_finish", 155)])
    def test_where_more_waits_than_can_be_done_in_time_most_is_done(
        self, policy: str, least: int
    ) -> None:
        """Else those who are just in time are all run alone, and always more become late."""
        subject, random, at_s = machine(policy, fused_s=2.0), Random(0), 0.0
        due_s: dict[int, float] = {}
        for _ in range(240):
            at_s += random.expovariate(1.6)
            model = TENANTS[random.randrange(4)]
            due_s[subject.submit(model, arrival_s=at_s, deadline_s=at_s + 5)] = at_s + 5
        subject.run()
        assert subject.now < at_s + 10
        assert sum(subject.finished_s[number] <= due for number, due in due_s.items()) >= least

    def test_but_no_more_become_late_in_a_run_than_are_in_time(self) -> None:
        subject = machine("edf", fused_s=3.4, limits=FREE)
        subject.submit("n", deadline_s=4.0)
        numbers = [subject.submit(model, deadline_s=4.0) for model in "abcd" * 3]
        subject.run()
        assert sum(subject.finished_s[number] <= 4.0 for number in numbers) == 3

    def test_nor_does_the_first_become_late_if_it_may_be_dropped(self) -> None:
        subject = machine("edf", fused_s=2.0, limits=FREE)
        subject.submit("n", deadline_s=5.0)
        first = subject.submit("a", deadline_s=2.5, on_late=OnLate.DROP)
        for model in "bcd" * 4:
            subject.submit(model, deadline_s=5.0)
        subject.run()
        assert subject.finished_s[first] == 2.0

    def test_what_waits_for_other_processors_makes_nobody_late(self) -> None:
        """More of n waits than can be done in time, but where no member could run."""
        seconds = {model: {"cpu0": 1.0} for model in TENANTS}
        subject = VirtualMachine(
            processors("cpu0", "npu"),
            make_policy("edf"),
            {**seconds, "n": {"npu": 1.0}},
            fused={"all": (TENANTS, {"cpu0": 2.5})},
            limits=FREE,
        )
        for _ in range(20):
            subject.submit("n", deadline_s=2.0)
        subject.submit("a", deadline_s=2.0)
        numbers = [subject.submit(model, deadline_s=3.3) for model in "bcd"]
        subject.run()
        assert [subject.finished_s[number] for number in numbers] == [2.0, 3.0, 4.0]

    def test_nor_does_it_keep_a_run_from_being_over_too_late(self) -> None:
        seconds = dict.fromkeys(("cpu0", "cpu1"), 1.0)
        subject = VirtualMachine(
            processors("cpu0", "cpu1", "npu"),
            make_policy("fcfs"),
            {**dict.fromkeys((*TENANTS, "n"), seconds), "other": {"npu": 1.0}},
            fused={"all": (TENANTS, dict.fromkeys(seconds, 2.5))},
        )
        for _ in range(20):
            subject.submit("other")
        subject.submit("n")
        subject.submit("n", arrival_s=0.5)
        numbers = [subject.submit(model, arrival_s=0.6) for model in "abcd"]
        subject.run()
        assert [subject.finished_s[number] for number in numbers] == [2.0, 2.5, 3.0, 3.5]

    def test_it_counts_for_batches_as_for_fused_runs(self) -> None:
        # Four in either: what both save of it is the same.
        for fused_s, expected in ((1.5, "abcd"), (3.5, "aaaa")):
            subject = machine(
                fused_s=fused_s,
                handover_s=0.5,
                batchings={"a": Batching(8)},
                fixed_share=0.6,
                limits=FREE,
            )
            for model in "naaaabcd":
                subject.submit(model)
            subject.run()
            assert runs(subject)[1][1] == expected

    def test_a_smaller_variant_is_taken_where_few_wait(self) -> None:
        more = {"two": (("a", "b"), {"cpu0": 1.2})}
        subject = machine(fused_s=2.0, more=more)
        for model in "nab":
            subject.submit(model)
        subject.run()
        assert runs(subject) == [("", "n"), ("two", "ab")]
        subject = machine(fused_s=2.0, more=more)
        for model in "nabcd":
            subject.submit(model)
        subject.run()
        assert runs(subject) == [("", "n"), ("all", "abcd")]

    def test_other_numbers_of_samples_and_other_sizes_do_not_ride(self) -> None:
        subject = machine(fused_s=1.5)
        subject.submit("n")
        subject.submit("a", batch=2)
        subject.submit("b", sizes=1)
        subject.submit("c", shape=0)
        subject.submit("d")
        subject.run()
        assert runs(subject) == [("", "n"), ("", "a"), ("", "b"), ("all", "cd")]

    def test_what_saves_most_of_batches_and_fused_runs_is_taken(self) -> None:
        for fused_s, expected in ((1.6, "abcd"), (3.5, "aaaa")):
            subject = machine(
                fused_s=fused_s, batchings={"a": Batching(8)}, fixed_share=0.6, limits=FREE
            )
            for model in "naaaabcd":
                subject.submit(model)
            subject.run()
            assert runs(subject)[1][1] == expected

    def test_idle_processors_serve_them_sooner(self) -> None:
        class FromOneOn(Policy):
            """First come, first served, after a second."""

            def rank(self, request: Request) -> float:
                return request.arrival_s

            def decide(self, view: View) -> Iterator[Decision]:
                if view.now < 1.0:
                    yield WaitUntil(1.0)
                    return
                while found := view.first_startable():
                    yield Start(found[1][0], (found[0].head,))

        # In the first case all are answered sooner by two runs on each. In the second case b alone
        # is left to the idle one.
        for fused_s, expected in ((2.1, ["a", "b", "c", "d"]), (1.6, ["acd", "b"])):
            at = {"cpu0": 1.0, "cpu1": 1.0}
            fused = {"all": (TENANTS, dict.fromkeys(at, fused_s))}
            seconds = dict.fromkeys(TENANTS, at)
            subject = VirtualMachine(processors(*at), FromOneOn(), seconds, fused=fused)
            for model in TENANTS:
                subject.submit(model)
            subject.run()
            assert [models for _, models in runs(subject)] == expected

    def test_a_request_that_failed_has_no_riders_and_rides_nowhere(self) -> None:
        subject = machine("fcfs", "cpu0", "cpu1")
        number = subject.submit("a")
        subject.fail(subject.executions[0].id)
        subject.submit("n")
        for model in "bcd":
            subject.submit(model)
        subject.run()
        assert subject.outcomes()[number] is Outcome.COMPLETED
        assert all("a" not in models for variant, models in runs(subject) if variant)


class TestDeadlines:
    def test_nobody_becomes_late_by_riding(self) -> None:
        subject = machine(fused_s=2.0, limits=FREE)
        subject.submit("n")
        for model in "abc":
            subject.submit(model)
        subject.submit("d", deadline_s=2.9)  # alone it would be served in time, in the run not
        subject.run()
        assert runs(subject)[1] == ("all", "abc")

    def test_the_first_does_not_become_late_either(self) -> None:
        subject = machine("edf", fused_s=2.0, limits=FREE)
        subject.submit("n")
        subject.submit("a", deadline_s=2.5)
        for model in "bcd":
            subject.submit(model, deadline_s=9.0)
        subject.run()
        assert runs(subject) == [("", "n"), ("", "a"), ("all", "bcd")]

    def test_what_waits_elsewhere_is_not_made_late(self) -> None:
        subject = machine("fcfs", fused_s=2.0, limits=FREE)
        for model in "nabcd":
            subject.submit(model)
        subject.submit("n", deadline_s=3.5)  # in time after one run, and not after the shared one
        subject.run()
        assert runs(subject)[1] == ("", "a")

    def test_it_blocks_no_longer_than_a_quarter_of_the_shortest_deadline(self) -> None:
        for deadline_s, expected in ((9.0, ""), (13.0, "all")):
            subject = machine(fused_s=3.0)
            subject.submit("n", deadline_s=deadline_s)
            for model in "abcd":
                subject.submit(model)
            subject.run()
            assert runs(subject)[1][0] == expected

    def test_a_run_is_no_longer_than_may_block(self) -> None:
        subject = machine(fused_s=2.0, limits=Limits(max_blocking_s=1.5))
        subject.submit("n", deadline_s=99.0)
        for model in "abcd":
            subject.submit(model)
        subject.run()
        assert {variant for variant, _ in runs(subject)} == {""}

    def test_they_wait_for_each_other_while_that_costs_less_than_it_brings(self) -> None:
        subject = machine("edf", fused_s=1.2, limits=FREE)
        for at in range(6):  # the gaps between the requests of each must be known first
            for number, model in enumerate("abcd"):
                arrival_s = 2.0 * at + 0.1 * number
                subject.submit(model, arrival_s=arrival_s, deadline_s=arrival_s + 15.0)
        subject.run()
        starts = {
            round(e.started_s, 3): models
            for e, (_, models) in zip(subject.executions, runs(subject), strict=True)
        }
        assert starts[6.0] == "a"  # nothing is known yet
        assert starts[8.2] == "abc"  # for d alone nobody waits: it comes every two seconds

    def test_with_time_to_spare_nobody_waits(self) -> None:
        cores = tuple(f"cpu{number}" for number in range(8))
        subject = machine("edf", *cores, fused_s=1.2)
        numbers = [
            subject.submit("abcd"[number % 4], arrival_s=0.4 * number, deadline_s=0.4 * number + 10)
            for number in range(40)
        ]
        subject.run()
        began = {r.id: e.started_s for e in subject.executions for r in e.requests}
        assert [began[n] for n in numbers] == pytest.approx([0.4 * k for k in range(40)])

    def test_what_may_be_dropped_is_served_or_dropped_once(self) -> None:
        subject = machine("edf", fused_s=2.0, limits=FREE)
        for model in "nabcdabcd":
            subject.submit(model, deadline_s=4.0, on_late=OnLate.DROP)
        subject.run()
        assert len(subject.replies) == 9


class TestFailures:
    def test_riders_go_on_alone_and_the_processor_is_not_blamed(self) -> None:
        subject = machine()
        for model in "nabcd":
            subject.submit(model)
        subject.finish(0)
        subject.fail(1)
        subject.run()
        assert runs(subject)[1] == ("all", "abcd")
        assert runs(subject)[2:] == [("", model) for model in "abcd"]
        assert set(subject.outcomes().values()) == {Outcome.COMPLETED}
        assert not subject.dispatcher.outages

    def test_a_variant_that_fails_again_and_again_is_used_no_more(self) -> None:
        subject = machine()
        for _ in range(MOST_FAILURES + 2):
            for model in "nabcd":
                subject.submit(model)
            while subject.unanswered:
                fused = [e for e in subject.running.values() if e.is_fused]
                if fused:
                    subject.fail(fused[0].id)
                else:
                    subject.step()
        assert sum(bool(variant) for variant, _ in runs(subject)) == MOST_FAILURES
        assert set(subject.outcomes().values()) == {Outcome.COMPLETED}

    def test_one_that_hangs_is_given_up_and_all_are_served_elsewhere(self) -> None:
        def service_s(execution: Execution) -> float:
            return math.inf if execution.is_fused else execution.expected_s

        subject = machine("fcfs", "cpu0", "cpu1", service_s=service_s, fused_s=1.5)
        for model in "nnabcd":
            subject.submit(model)
        subject.run()
        assert set(subject.outcomes().values()) == {Outcome.COMPLETED}

    def test_a_cancelled_rider_does_not_disturb_the_others(self) -> None:
        subject = machine()
        numbers = [subject.submit(model) for model in "nabcd"]
        subject.finish(0)
        subject.post(Cancelled(numbers[2]))
        subject.run()
        assert len(subject.executions) == 2
        assert all(subject.outcomes()[number] is Outcome.COMPLETED for number in numbers[3:])


class TestMembers:
    def test_one_that_is_unloaded_leaves_its_slot_empty_for_good(self) -> None:
        subject = machine()
        subject.post(ModelUnloaded("b"))
        for model in "nacd":
            subject.submit(model)
        subject.run()
        assert runs(subject)[-1] == ("all", "acd")
        subject.post(ModelLoaded("b", 1, profile("b", {"cpu0": 1.0})))
        for model in "nabcd":
            subject.submit(model)
        subject.run()
        assert runs(subject)[-2:] == [("all", "acd"), ("", "b")] or runs(subject)[-2:] == [
            ("", "b"),
            ("all", "acd"),
        ]

    def test_with_one_left_nothing_is_fused(self) -> None:
        subject = machine(tenants=("a", "b"), fused_s=1.2)
        subject.post(ModelUnloaded("a"))
        for model in "nbb":
            subject.submit(model)
        subject.run()
        assert {variant for variant, _ in runs(subject)} == {""}

    def test_the_event_survives_a_log(self) -> None:
        event = FusedLoaded("all", TENANTS, Profile.from_seconds({"all": {"cpu0": 0.1}}))
        assert decode_event(encode_event(event)) == event
