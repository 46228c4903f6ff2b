"""Policies that look at a window of the queue: what fills it leaves free processors to others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from coinfer.core.lane import Lane
from coinfer.core.request import Request
from coinfer.core.view import View
from coinfer.policies import make_policy
from coinfer.testing.machine import VirtualMachine, processors

POLICIES = ["earliest_finish", "heft", "heft_reserved", "least_slack", "shortest_expected_latency"]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("many", [False, True], ids=["few processors", "many alike"])
def test_a_full_window_is_not_the_end_of_the_queue(policy: str, many: bool) -> None:
    cores = [f"cpu{n}" for n in range(40 if many else 1)]
    seconds = {
        "slow": dict.fromkeys(cores, 10.0),
        "cut": {"npu": 0.01},
        "other": {"npu": 0.02},
    }
    machine = VirtualMachine(
        processors(*cores, "npu"), make_policy(policy), seconds, units={"cut": 2}
    )
    for _ in range(len(cores) + 40):
        machine.submit("slow")
    numbers = [machine.submit(name, arrival_s=1.0) for name in ("cut", "other", "cut", "other")]
    machine.run(until_s=9.0)
    assert all(machine.finished_s[number] < 1.07 for number in numbers)


@pytest.mark.parametrize("policy", POLICIES)
def test_of_others_only_those_are_looked_at_that_can_use_what_is_free(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a hundred models a decision would take milliseconds otherwise."""
    seconds = {f"m{n}": {"cpu": 10.0} for n in range(100)} | {"late": {"npu": 0.01}}
    machine = VirtualMachine(processors("cpu", "npu"), make_policy(policy), seconds)
    looked_at, real = list[int](), View.others

    def counted(*given: Any) -> Iterator[tuple[Lane, Request]]:
        found = list(real(*given))
        looked_at.append(len(found))
        return iter(found)

    monkeypatch.setattr(View, "others", counted)
    for n in range(100):
        machine.submit(f"m{n}")
    number = machine.submit("late", arrival_s=1.0)
    machine.run(until_s=2.0)
    assert machine.finished_s[number] == pytest.approx(1.01)
    assert looked_at
    assert max(looked_at) == 1
