"""The policy changes while requests wait and run: nothing is lost, and the new one decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from coinfer.core.commands import Reply
from coinfer.core.events import PolicyChanged
from coinfer.core.policy import Policy
from coinfer.core.request import Outcome, Request
from coinfer.core.view import View
from coinfer.machine.batching import Batching
from coinfer.policies import make_policy, policy_names
from coinfer.testing.machine import VirtualMachine, processors
from core.test_dispatcher_stateful import (
    BATCHINGS,
    EXPRESS,
    FUSED,
    OPTIONS,
    PROCESSORS,
    AnythingHappens,
    build,
    run,
    variants,
)

NAMES = sorted(policy_names())


def changed(name: str, **options: Any) -> PolicyChanged:
    return PolicyChanged(make_policy(name, **options), name, options)


def _may_go(reply: Reply) -> bool:
    """Tell whether a policy may drop it, or finds out that memory has become too small for it."""
    return reply.outcome is Outcome.DROPPED or "more than memory has" in reply.reason


class ChangingPolicy(AnythingHappens):
    @rule(name=st.sampled_from(NAMES))
    def change_policy(self, name: str) -> None:
        unanswered = set(self.machine.unanswered)
        running = set(self.machine.running)
        self.policy = name
        self.machine.post(PolicyChanged(build(name), name, OPTIONS.get(name, {})))
        assert running <= self.machine.running.keys(), "what runs goes on"
        gone = unanswered - self.machine.unanswered
        may_go = {n for n in gone if _may_go(self.machine.replies[n])}
        assert gone == may_go, "only what a policy may drop is answered by a change"


@pytest.mark.parametrize("budget", [None, 100], ids=["", "memory budget"])
@pytest.mark.parametrize("batchings", [{}, BATCHINGS], ids=["apart", "with riders"])
@pytest.mark.parametrize("express", [[], EXPRESS], ids=["ordinary", "with express processors"])
def test_every_request_is_answered_once_whoever_decides(
    express: list[Any], batchings: Mapping[str, Batching], budget: int | None
) -> None:
    fields = {
        "policy": "earliest_finish",
        "processors": [*PROCESSORS, *express],
        "batchings": batchings,
        "variants": variants(batchings) if express else {},
        "fused": FUSED if batchings else {},
        "budget": budget,
    }
    run(fields, examples=40, base=ChangingPolicy)


def test_the_new_policy_orders_what_waits_already() -> None:
    machine = VirtualMachine(processors("cpu0"), make_policy("fcfs"), {"m": {"cpu0": 1.0}})
    first, later, sooner = (machine.submit("m", deadline_s=s) for s in (9.0, 8.0, 7.0))
    machine.post(changed("edf"))
    machine.run()
    assert machine.finished_s == {first: 1.0, sooner: 2.0, later: 3.0}


def test_requests_that_run_go_on_in_the_queues_of_the_new_policy() -> None:
    machine = VirtualMachine(
        processors("cpu0", "cpu1"),
        make_policy("two_queues"),
        {"m": {"cpu0": 1.0, "cpu1": 1.0}},
        units={"m": 3},
    )
    numbers = [machine.submit("m"), machine.submit("m", deadline_s=9.0), machine.submit("m")]
    for name in ("fcfs", "two_queues", "edf"):
        machine.post(changed(name))
    machine.run()
    assert {machine.replies[n].outcome for n in numbers} == {Outcome.COMPLETED}


def test_a_mapping_is_obeyed_from_the_change_on() -> None:
    seconds = {"m": {"cpu0": 1.0, "cpu1": 1.0}}
    machine = VirtualMachine(processors("cpu0", "cpu1"), make_policy("fcfs"), seconds)
    for _ in range(6):
        machine.submit("m")
    machine.post(changed("fixed", assignment={"m": "cpu1"}))
    machine.run()
    assert [e.processor for e in machine.executions] == ["cpu0", *["cpu1"] * 5]


class Broken(Policy):
    def rank(self, request: Request) -> Any:
        raise ZeroDivisionError

    def pick(self, view: View) -> None:
        return None


def test_a_policy_that_cannot_order_what_waits_fails_it_and_nothing_else() -> None:
    machine = VirtualMachine(processors("cpu0"), make_policy("fcfs"), {"m": {"cpu0": 1.0}})
    runs, waits, also = (machine.submit("m") for _ in range(3))
    machine.post(PolicyChanged(Broken(), "broken"))
    machine.run()
    assert machine.outcomes() == {
        runs: Outcome.COMPLETED,
        waits: Outcome.FAILED,
        also: Outcome.FAILED,
    }
    assert "Broken" in str(machine.dispatcher.fault)
    machine.post(changed("fcfs"))
    assert machine.dispatcher.fault is not None
