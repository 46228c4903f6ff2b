"""Policies that look at a window of the queue: what fills it leaves free processors to others."""

from __future__ import annotations

import pytest

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


def test_of_others_only_the_first_are_looked_at_that_can_use_what_is_free() -> None:
    """With a hundred models a decision would take milliseconds otherwise."""
    seconds = {f"m{n}": {"cpu": 10.0} for n in range(100)} | {"late": {"npu": 0.01}}
    machine = VirtualMachine(processors("cpu", "npu"), make_policy("fcfs"), seconds)
    for name in [*seconds, *seconds]:
        machine.submit(name)
    view = machine.dispatcher.view
    assert [request.model for _, request in view.others(32, (), {"npu"})] == ["late"]
    assert [request.model for _, request in view.others(3, (), {"cpu"})] == ["m1", "m2", "m3"]
    seen = {lane for lane in view.lanes() if lane.key.model != "m7"}
    assert [request.model for _, request in view.others(3, seen, {"cpu", "npu"})] == ["m7"]
