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
