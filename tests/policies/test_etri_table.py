"""Throughput of the published policies on the published table, against values derived from it."""

from __future__ import annotations

import math
import random

import pytest

from coinfer.core.policy import Policy
from coinfer.policies import make_policy
from coinfer.testing.machine import VirtualMachine, processors
from policies.etri import BOUND_PER_S, MODELS, PRIORITIES, PROCESSORS, SECONDS

OF_EACH = 2000


def throughput(policy: Policy, *, shuffled: bool = False) -> float:
    """Inferences per second of a backlog of equal counts."""
    machine = VirtualMachine(processors(*PROCESSORS), policy, SECONDS, checked=False)
    jobs = list(MODELS) * OF_EACH
    if shuffled:
        random.Random(7).shuffle(jobs)
    for model in jobs:
        machine.submit(model)
    machine.run()
    assert len(machine.executions) == len(jobs)
    return len(jobs) / machine.now


def test_fcfs_in_random_order() -> None:
    assert throughput(make_policy("fcfs"), shuffled=True) == pytest.approx(84.234, rel=0.015)


def test_sjf() -> None:
    assert throughput(make_policy("sjf")) == pytest.approx(90.928, rel=0.015)


def test_affinity() -> None:
    # The busiest processor decides: the NCS2 with 50.743 ms per ResNet50.
    assert throughput(make_policy("affinity")) == pytest.approx(59.121, rel=1e-4)


def test_priority_with_the_published_table() -> None:
    policy = make_policy("priority", table=PRIORITIES, ageing_s=math.inf)
    assert throughput(policy) == pytest.approx(91.73, rel=0.015)


@pytest.mark.parametrize("shuffled", [False, True])
def test_earliest_finish_comes_close_to_the_bound(shuffled: bool) -> None:
    reached = throughput(make_policy("earliest_finish"), shuffled=shuffled)
    assert 0.94 * BOUND_PER_S < reached <= BOUND_PER_S
