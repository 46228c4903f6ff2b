"""A policy that places a lone request directly places it as it would by deciding."""

from __future__ import annotations

import random

import pytest

from coinfer.core.policy import overridden
from coinfer.policies import make_policy, policy_names
from coinfer.testing.machine import VirtualMachine, processors

PROCESSORS = processors("cpu0", "cpu1", "npu", all=("cpu0", "cpu1"))
SECONDS = {
    "small": {"cpu0": 0.02, "cpu1": 0.025, "all": 0.013, "npu": 0.004},
    "large": {"cpu0": 0.3, "cpu1": 0.28, "all": 0.16, "npu": 0.11},
    "cut": {"cpu0": 0.09, "cpu1": 0.1, "npu": 0.03},
    "cpu only": {"cpu0": 0.05, "all": 0.03},
}
OPTIONS = {
    "fixed": {"assignment": {"small": "npu", "large": "all", "cut": "npu", "cpu only": "all"}}
}
DIRECT = [
    name
    for name in policy_names()
    if overridden(make_policy(name, **OPTIONS.get(name, {})), "place") is not None
]


def executions(policy: str, *, direct: bool, mean_s: float) -> list[tuple[float, str, str, int]]:
    """What starts when and where under arrivals that seldom find anything waiting."""
    draw = random.Random(f"{policy} {mean_s}")
    took = random.Random(policy)
    machine = VirtualMachine(
        PROCESSORS,
        make_policy(policy, **OPTIONS.get(policy, {})),
        SECONDS,
        units={"cut": 3},
        gaps={"cut": {"npu": {1}}},
        service_s=lambda execution: execution.expected_s * took.uniform(0.8, 1.2),
    )
    if not direct:
        machine.dispatcher._decisions.place = None
    at_s = 0.0
    for _ in range(400):
        at_s += draw.expovariate(1 / mean_s)
        patience = {"deadline_s": at_s + 0.5} if draw.random() < 0.3 else {}
        machine.submit(draw.choice(list(SECONDS)), arrival_s=at_s, **patience)
    machine.run()
    return [(e.started_s, e.model, e.processor, e.span.last) for e in machine.executions]


@pytest.mark.parametrize("mean_s", [0.3, 0.06])
@pytest.mark.parametrize("policy", DIRECT)
def test_a_lone_request_goes_where_deciding_would_send_it(policy: str, mean_s: float) -> None:
    placed = executions(policy, direct=True, mean_s=mean_s)
    assert placed == executions(policy, direct=False, mean_s=mean_s)


@pytest.mark.parametrize("policy", DIRECT)
def test_lone_requests_are_placed_directly(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[str | None] = []
    machine = VirtualMachine(
        PROCESSORS, make_policy(policy, **OPTIONS.get(policy, {})), {"small": SECONDS["small"]}
    )
    place = machine.dispatcher._decisions.place
    assert place is not None
    monkeypatch.setattr(
        machine.dispatcher._decisions,
        "place",
        lambda *asked: placed.append(place(*asked)) or placed[-1],
    )
    for _ in range(20):
        machine.submit("small")
        machine.run()
    # Comparative advantage decides at first, and now and then, to look at its lists.
    assert placed.count(None) == (2 if policy == "comparative_advantage" else 0)
    assert len(placed) == 20


def test_which_policies_place_directly() -> None:
    assert {"comparative_advantage", "earliest_finish", "fcfs", "min_min"} <= set(DIRECT)


@pytest.mark.parametrize("hook", ["arrived", "started", "allows"])
def test_two_queues_have_the_hooks_that_their_policies_have(hook: str) -> None:
    assert overridden(make_policy("two_queues", deadline="edf", best_effort="fcfs"), hook) is None


def test_two_queues_keep_the_rules_of_their_policies() -> None:
    fixed = {"best_effort": "fixed", "best_effort_options": {"assignment": {"small": "cpu"}}}
    assert overridden(make_policy("two_queues", **fixed), "allows") is not None
    assert overridden(make_policy("two_queues", deadline="earliest_finish"), "arrived") is not None
