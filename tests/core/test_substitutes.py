"""What serves a request in a memory with a budget while its own variant is not loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from coinfer.core.commands import Evict, Execution, Load
from coinfer.core.events import LoadedVariant, MemoryGiven, ModelUnloaded
from coinfer.core.fusing import MOST_FAILURES
from coinfer.core.request import Outcome
from coinfer.machine.variant_use import Use
from coinfer.policies import make_policy, policy_names
from coinfer.replay.codec import decode_event, encode_event
from coinfer.testing.machine import VirtualMachine, loadables, processors, profile

LOAD_S = 1.0
SMALL = LoadedVariant("a@int8", 0.05, Use.WHEN_LATE, 1, profile("a@int8", {"cpu0": 0.05}))


def machine(budget: int, policy: str = "fcfs", **fields: Any) -> VirtualMachine:
    """Build one core, and models of 100 bytes that run for 0.1 s and take a second to load."""
    given: dict[str, Any] = {
        "seconds": {name: {"cpu0": 0.1} for name in "ab"},
        "variants": {"a": (SMALL,)},
        "sizes": {"a": 100, "b": 100, "a@int8": 20},
        **fields,
    }
    options = {"assignment": dict.fromkeys("abc", "cpu0")} if policy == "fixed" else {}
    seconds = given.pop("seconds")
    subject = VirtualMachine(
        processors("cpu0"),
        make_policy(policy, **options),
        seconds,
        budget=budget,
        load_s=LOAD_S,
        **given,
    )
    while subject.loading is not None:
        assert subject.step()
    return subject


def there(subject: VirtualMachine) -> set[str]:
    return {load.variant for load in subject.resident.values()}


def ran(subject: VirtualMachine) -> list[str]:
    return [execution.variant for execution in subject.executions]


def loads(subject: VirtualMachine) -> list[str]:
    return [command.variant for command in subject.commands if isinstance(command, Load)]


def held_by(subject: VirtualMachine, model: str) -> None:
    """Let a model take the room of others: it is asked for until it is there."""
    while model not in there(subject):
        subject.submit(model)
        subject.run()


class TestCheaperVariants:
    def test_who_would_be_late_by_a_load_gets_the_cheaper_one_that_is_there(self) -> None:
        subject = machine(120)
        held_by(subject, "b")
        assert there(subject) == {"b", "a@int8"}
        number = subject.submit("a", deadline_s=subject.now + 0.5)
        assert subject.running[len(subject.executions) - 1].variant == "a@int8"
        subject.run()
        assert subject.outcomes()[number] is Outcome.COMPLETED
        assert subject.finished_s[number] <= subject.replies[number].request.deadline_s

    @pytest.mark.parametrize("in_s", [2.0, math.inf])
    def test_who_would_not_be_late_waits_for_the_original(self, in_s: float) -> None:
        subject = machine(120)
        held_by(subject, "b")
        subject.submit("a", deadline_s=subject.now + in_s)
        subject.run()
        assert ran(subject)[-1] == "a"

    def test_of_a_lane_only_those_who_would_be_late_are_lent_to(self) -> None:
        subject = machine(120)
        held_by(subject, "b")
        soon, later = (subject.submit("a", deadline_s=subject.now + in_s) for in_s in (0.5, 5.0))
        subject.run()
        served = {e.requests[0].id: e.variant for e in subject.executions}
        assert (served[soon], served[later]) == ("a@int8", "a")

    @pytest.mark.parametrize("policy", policy_names())
    def test_under_every_policy(self, policy: str) -> None:
        subject = machine(120, policy)
        held_by(subject, "b")
        numbers = [subject.submit("a", deadline_s=subject.now + in_s) for in_s in (0.4, 0.5, 9.0)]
        subject.run()
        assert subject.dispatcher.fault is None
        served = {e.requests[0].id: e.variant for e in subject.executions}
        assert [served[number] for number in numbers] == ["a@int8", "a@int8", "a"]

    def test_if_neither_is_there_that_is_loaded_by_which_it_is_in_time(self) -> None:
        sizes = {"a": 100, "b": 100, "a@int8": 50}
        subject = machine(100, sizes=sizes)
        held_by(subject, "b")
        begun = len(loads(subject))
        number = subject.submit("a", deadline_s=subject.now + 1.2)
        subject.run()
        assert loads(subject)[begun] == "a@int8"
        assert subject.finished_s[number] <= subject.replies[number].request.deadline_s

    def test_the_original_takes_the_room_of_what_nobody_asks_for_any_more(self) -> None:
        subject = machine(120)
        held_by(subject, "b")
        for _ in range(300):
            subject.submit("a", deadline_s=subject.now + 0.5)
            subject.run()
            if "a" in there(subject):
                break
        assert there(subject) == {"a", "a@int8"}

    def test_without_room_for_the_original_ever_the_cheaper_one_serves_all(self) -> None:
        subject = machine(120)
        subject.post(MemoryGiven({"host": 50}))
        number = subject.submit("a")
        subject.run()
        assert ran(subject)[-1] == "a@int8"
        assert subject.outcomes()[number] is Outcome.COMPLETED

    def test_what_is_loaded_is_in_the_budget_and_goes_with_its_model(self) -> None:
        subject = machine(220)
        assert there(subject) == {"a", "b", "a@int8"}
        assert subject.dispatcher.memories == {"host": (220, 220)}
        subject.post(ModelUnloaded("a"))
        assert there(subject) == {"b"}
        assert subject.dispatcher.memories == {"host": (220, 100)}


def tenants(budget: int, policy: str = "fcfs", **fields: Any) -> VirtualMachine:
    """Build models of 100 bytes, two of them fused to one run of 0.12 s."""
    fused: Mapping[str, Any] = {"a+1": (("a", "b"), {"cpu0": 0.12})}
    seconds = {name: {"cpu0": 0.1} for name in "abc"}
    sizes = dict.fromkeys("abc", 100)
    return machine(budget, policy, seconds=seconds, variants={}, fused=fused, sizes=sizes, **fields)


class TestFusedVariants:
    def test_it_is_loaded_before_its_members_which_come_last(self) -> None:
        subject = tenants(300)
        assert there(subject) == {"a", "a+1"}, "the first load began before the others were known"
        subject = tenants(400)
        assert there(subject) == {"a", "a+1", "c"}

    @pytest.mark.parametrize("policy", policy_names())
    def test_a_member_that_is_not_loaded_is_served_by_it_alone(self, policy: str) -> None:
        subject = tenants(400, policy)
        number = subject.submit("b")
        subject.run()
        assert (ran(subject)[-1], subject.outcomes()[number]) == ("a+1", Outcome.COMPLETED)
        assert "b" not in there(subject)
        lane = subject.dispatcher.view.entrance("b")
        assert lane.seconds["cpu0"] == pytest.approx(0.1), "it learns nothing from that"

    def test_members_that_wait_share_a_run_of_it(self) -> None:
        subject = tenants(400)
        subject.submit("c")
        for model in "ab":
            subject.submit(model)
        subject.run()
        assert ran(subject) == ["c", "a+1"]

    def test_a_group_that_is_always_fused_leaves_its_members_room_to_others(self) -> None:
        subject = tenants(500)
        assert there(subject) == {"a", "b", "c", "a+1"}
        subject.post(MemoryGiven({"host": 300}))
        for _ in range(20):
            for model in "cab":
                subject.submit(model)
            subject.run()
        assert there(subject) == {"a+1", "c"}

    def test_if_it_is_not_loaded_its_members_run_for_themselves(self) -> None:
        subject = tenants(150)
        for model in "abab":
            subject.submit(model)
        subject.run()
        assert set(ran(subject)) == {"a", "b"}

    def test_one_that_keeps_failing_is_evicted_for_good(self) -> None:
        subject = tenants(400)
        for _ in range(MOST_FAILURES):
            subject.submit("b")
            execution = subject.executions[-1]
            assert execution.variant == "a+1"
            subject.fail(execution.id)
            subject.run()
        assert "a+1" not in there(subject)
        assert Evict("a+1", subject_place(subject, "a+1")) in [
            command._replace(span=Evict("").span, processors=())
            for command in subject.commands
            if isinstance(command, Evict)
        ]
        subject.submit("b")
        subject.run()
        assert ran(subject)[-1] == "b"

    def test_it_goes_with_its_last_but_one_member(self) -> None:
        subject = tenants(400)
        subject.post(ModelUnloaded("a"))
        subject.submit("c")
        subject.run()
        assert "a+1" not in there(subject)


def subject_place(subject: VirtualMachine, variant: str) -> int:
    return next(c.place for c in subject.commands if isinstance(c, Load) and c.variant == variant)


def test_logs_keep_the_places_of_variants() -> None:
    from coinfer.core.events import FusedLoaded, ModelLoaded

    known = profile("a", {"cpu0": 0.1})
    places = loadables(known, 100, load_s=0.1)
    variant = SMALL._replace(places=places)
    for event in (
        ModelLoaded("a", 1, known, variants=(variant,), places=places),
        FusedLoaded("a+1", ("a", "b"), profile("a+1", {"cpu0": 0.1}), places),
    ):
        assert encode_event(decode_event(encode_event(event))) == encode_event(event)
        assert str(decode_event(encode_event(event)).places) == str(places)  # type: ignore[union-attr]


def test_executions_of_one_request_of_a_fused_variant_are_known_by_their_name() -> None:
    subject = tenants(400)
    subject.submit("b")
    [execution] = [e for e in subject.executions if isinstance(e, Execution)]
    assert (execution.variant, execution.model, execution.batch) == ("a+1", "b", 1)
