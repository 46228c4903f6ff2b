"""Urgent requests of several models share a run on an express processor, where that pays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from coinfer.core.commands import Execution
from coinfer.core.dispatcher import Limits
from coinfer.core.request import Outcome
from coinfer.policies import make_policy
from coinfer.testing.machine import VirtualMachine, processors
from core.test_preemption import express_on

TENANTS = ("a", "b", "c", "d")
RUN_S, FUSED_S, DEADLINE_S = 0.010, 0.020, 0.5


def expected(execution: Execution) -> float:
    return execution.expected_s


def machine(
    *,
    fused_s: float = FUSED_S,
    more: Mapping[str, Any] | None = None,
    service_s: Callable[[Execution], float] = expected,
    policy: str = "fcfs",
    **options: Any,
) -> VirtualMachine:
    """Tenants of 10 ms, fused to a run of 20, beside "heavy" of 10 s, on one core."""
    ordinary = processors("cpu0")
    seconds = {**{key: {"cpu0": RUN_S} for key in TENANTS}, "heavy": {"cpu0": 10.0}}
    vm = VirtualMachine(
        [*ordinary, *express_on(*ordinary)],
        make_policy(policy),
        seconds,
        fused={"all": (TENANTS, {"cpu0": fused_s}), **(more or {})},
        service_s=service_s,
        limits=Limits(max_blocking_s=math.inf),
        **options,
    )
    vm.submit("heavy")
    return vm


def ask(vm: VirtualMachine, models: str, in_s: float = DEADLINE_S, **fields: Any) -> list[int]:
    """Let requests come at one moment."""
    return [
        vm.submit(model, deadline_s=vm.now + in_s, is_followed=model != models[-1], **fields)
        for model in models
    ]


def on_top(vm: VirtualMachine) -> list[tuple[str, str]]:
    """Return what ran on the express processor, and of which models."""
    return [
        (each.variant, "".join(sorted(request.model for request in each.requests)))
        for each in vm.executions
        if each.processor == "cpu0+"
    ]


@pytest.mark.parametrize("policy", ["fcfs", "earliest_finish", "edf", "priority"])
def test_the_first_of_each_member_share_a_run(policy: str) -> None:
    vm = machine(policy=policy)
    numbers = ask(vm, "abcd")
    vm.run(until_s=1.0)
    assert on_top(vm) == [("all", "abcd")]
    assert [vm.finished_s[number] for number in numbers] == [pytest.approx(FUSED_S)] * 4
    vm.run()
    assert set(vm.outcomes().values()) == {Outcome.COMPLETED}


def test_too_few_for_what_the_run_takes_go_alone() -> None:
    vm = machine()
    ask(vm, "ab")
    vm.run(until_s=1.0)
    assert on_top(vm) == [("a", "a"), ("b", "b")]


def test_what_handing_over_takes_counts() -> None:
    vm = machine(handover_s=0.002)
    ask(vm, "ab")
    vm.run(until_s=1.0)
    assert on_top(vm) == [("all", "ab")]


def test_the_variant_is_taken_that_takes_least_per_request() -> None:
    vm = machine(more={"two": (("a", "b"), {"cpu0": 0.008})})
    ask(vm, "abcd")
    vm.run(until_s=1.0)
    assert on_top(vm) == [("two", "ab"), ("c", "c"), ("d", "d")]


def test_a_variant_that_does_not_run_there_is_passed_by() -> None:
    ordinary = processors("cpu0", "cpu1")
    vm = VirtualMachine(
        [*ordinary, *express_on(ordinary[0])],
        make_policy("fcfs"),
        {
            **{model: {"cpu0": RUN_S, "cpu1": RUN_S} for model in TENANTS},
            "heavy": {"cpu0": 10.0, "cpu1": 10.0},
        },
        fused={"all": (TENANTS, {"cpu1": FUSED_S})},
    )
    for _ in range(2):
        vm.submit("heavy")
    ask(vm, "abcd", math.inf, priority=1)
    vm.run(until_s=1.0)
    assert on_top(vm) == [(model, model) for model in "abcd"]


def test_nobody_becomes_late_by_riding() -> None:
    vm = machine()
    numbers = [vm.submit("d", deadline_s=0.015, is_followed=True), *ask(vm, "abc", 0.04)]
    vm.run(until_s=1.0)
    assert on_top(vm) == [(model, model) for model in "dabc"]
    assert [vm.finished_s[each] for each in numbers] == pytest.approx([0.01, 0.02, 0.03, 0.04])


def test_nor_does_another_urgent_model_that_may_come() -> None:
    vm = machine(fused_s=0.025, more={"three": (("a", "b", "c"), {"cpu0": 0.012})})
    vm.submit("d", deadline_s=0.030)  # has 20 ms to spare, whenever it comes
    vm.run(until_s=0.1)
    ask(vm, "abc")
    vm.run(until_s=1.0)
    assert on_top(vm) == [("d", "d"), ("three", "abc")]


def test_nor_does_a_further_request_of_those_that_is_more_urgent() -> None:
    vm = machine()
    first, second = (vm.submit("a", deadline_s=in_s, is_followed=True) for in_s in (0.021, 0.025))
    ask(vm, "bcd")
    vm.run(until_s=1.0)
    assert on_top(vm)[:2] == [("a", "a"), ("a", "a")]
    assert vm.finished_s[first] == pytest.approx(0.010)
    assert vm.finished_s[second] == pytest.approx(0.020)


def test_what_is_less_urgent_than_all_of_them_does_not_keep_them_from_it() -> None:
    vm = machine()
    ask(vm, "abcd", 0.025)
    last = vm.submit("a", deadline_s=0.031)
    vm.run(until_s=1.0)
    assert on_top(vm) == [("all", "abcd"), ("a", "a")]
    assert vm.finished_s[last] == pytest.approx(0.030)


def test_what_has_a_deadline_itself_is_not_held_up_for_longer() -> None:
    """Only what would be late by waiting is served on top of that, and nobody with it."""
    ordinary = processors("cpu0")
    vm = VirtualMachine(
        [*ordinary, *express_on(*ordinary)],
        make_policy("fcfs"),
        {**{key: {"cpu0": RUN_S} for key in TENANTS}, "heavy": {"cpu0": 10.0}},
        fused={"all": (TENANTS, {"cpu0": FUSED_S})},
    )
    vm.submit("heavy", deadline_s=100.0)
    ask(vm, "abcd")
    vm.run(until_s=1.0)
    assert on_top(vm) == [(model, model) for model in "abcd"]


def test_requests_of_other_sizes_do_not_ride() -> None:
    vm = machine()
    vm.submit("a", deadline_s=DEADLINE_S, is_followed=True)
    vm.submit("b", deadline_s=DEADLINE_S, is_followed=True)
    vm.submit("c", deadline_s=DEADLINE_S, is_followed=True)
    vm.submit("d", deadline_s=DEADLINE_S, batch=2)
    vm.run(until_s=1.0)
    assert on_top(vm)[0] == ("all", "abc")


def test_what_slows_it_down_is_held_against_runs_apart_as_well() -> None:
    vm = machine(service_s=lambda each: each.expected_s if each.model == "heavy" else 0.04)
    for number in range(20):
        ask(vm, "abcd")
        vm.run(until_s=0.1 * (number + 1))
    assert on_top(vm) == [("all", "abcd")] * 20


def test_one_that_is_much_slower_than_measured_is_given_up() -> None:
    vm = machine(service_s=lambda each: 0.1 if each.is_fused else each.expected_s)
    for number in range(20):
        ask(vm, "abcd")
        vm.run(until_s=0.2 * (number + 1))
    assert on_top(vm)[0] == ("all", "abcd")
    assert on_top(vm)[-4:] == [(model, model) for model in "abcd"]


def test_a_run_that_fails_is_tried_again_alone_and_the_processor_not_blamed() -> None:
    vm = machine()
    ask(vm, "abcd")
    (shared,) = [each for each in vm.running.values() if each.is_fused]
    vm.fail(shared.id, "it broke")
    vm.run(until_s=1.0)
    assert on_top(vm) == [("all", "abcd"), *[(model, model) for model in "abcd"]]
    vm.run()
    assert set(vm.outcomes().values()) == {Outcome.COMPLETED}
    assert not vm.dispatcher.outages


def test_what_is_served_so_counts_as_needing_the_fused_variant_where_memory_is_short() -> None:
    everything = dict.fromkeys((*TENANTS, "heavy"), 10)
    vm = machine(budget=100, sizes=everything, shared=["cpu0", "cpu0+"], load_s=0.001)
    for number in range(1, 6):
        vm.run(until_s=0.1 * number)
        ask(vm, "abcd")
    vm.run(until_s=1.0)
    counted = vm.dispatcher._state.residency.popularity
    served = on_top(vm).count(("all", "abcd"))
    assert served > 0
    assert counted.of(["all"]) > 4 * (served - 1) / 1.2
    assert counted.of(TENANTS) <= 4 * (5 - served) * 1.2
