"""Cascades in the simulator: each request once, after the one that it follows, for any policy."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from coinfer.core.commands import Reply
from coinfer.core.events import Arrived
from coinfer.core.request import Outcome, Request
from coinfer.plan import Plan
from coinfer.policies import make_policy, policy_names
from coinfer.sim import simulate
from coinfer.workload.scenario import Scenario
from sim.machines import Log, machine, play, scenario

TABLE = {
    "a": {"p": 0.010, "q": 0.020},
    "b": {"p": 0.030, "q": 0.015},
    "c": {"p": 0.004, "q": 0.004},
}
OPTIONS = {"fixed": {"assignment": {"a": "p", "b": "q", "c": "q"}}}
ARRIVALS = {
    "a": {"periodic": 40},
    "b": {"after": "a", "probability": 0.5},
    "c": {"after": "b"},
}


def wanted(arrivals: dict[str, Any] | None = None, **fields: Any) -> Scenario:
    return scenario(arrivals or ARRIVALS, **fields)


def promising(arrivals: dict[str, Any], **promises: Any) -> Scenario:
    """The same promises for all models."""
    plain = {"arrivals": arrivals, "duration": 10, "warmup": 0}
    specs = {name: {"source": "x", **promises} for name in arrivals}
    return Scenario.model_validate({"models": specs, **plain})


def history(log: Log) -> tuple[list[tuple[float, Request]], dict[tuple[str, float], float]]:
    """When which request was submitted; when the request of a model and frame was completed."""
    submitted, completed = [], {}
    for now, event, commands in log.steps:
        if isinstance(event, Arrived):
            submitted.append((now, event.request))
        for command in commands:
            if isinstance(command, Reply) and command.outcome is Outcome.COMPLETED:
                request = command.request
                completed[request.model, request.arrival_s] = now
    return submitted, completed


@pytest.mark.parametrize("policy", policy_names())
def test_each_follower_comes_once_when_what_it_follows_is_completed(policy: str) -> None:
    spreads = {(m, p): 0.5 for m in TABLE for p in ("p", "q")}
    made = make_policy(policy, **OPTIONS.get(policy, {}))
    log = play(machine(TABLE, spreads=spreads), wanted(), made)
    submitted, completed = history(log)
    frames = Counter((request.model, request.arrival_s) for _, request in submitted)
    assert set(frames.values()) == {1}
    counts = Counter(request.model for _, request in submitted)
    assert counts["a"] == 400
    assert counts["b"] == counts["c"] > 150
    for now, request in submitted:
        before = {"a": None, "b": "a", "c": "b"}[request.model]
        if before is not None:
            assert now == completed[before, request.arrival_s]


def test_the_same_frames_are_followed_under_every_policy() -> None:
    followed = []
    for policy in ("fcfs", "sjf", "earliest_finish"):
        submitted, _ = history(play(machine(TABLE), wanted(seed=5), policy))
        followed.append(sorted(r.arrival_s for _, r in submitted if r.model == "b"))
    assert followed[0] == followed[1] == followed[2]


def test_latency_and_deadline_of_a_follower_count_from_the_frame() -> None:
    arrivals = {"a": {"periodic": 10}, "b": {"after": "a"}, "c": {"after": "b"}}
    found = promising(arrivals, deadline="period")
    log = play(machine({"a": {"p": 0.01}, "b": {"p": 0.02}, "c": {"p": 0.03}}), found)
    last = [log.finished[i][0] - due for i, due in log.arrived.items()][2::3]
    assert last == pytest.approx([0.06] * 100)
    requests = [r for _, r in history(log)[0] if r.model == "c"]
    assert all(r.deadline_s == pytest.approx(r.arrival_s + 0.1) for r in requests)


def test_every_wanted_frame_is_submitted_or_withheld() -> None:
    """Under an overload that drops a third of the frames, as without any load."""
    found = promising(ARRIVALS, deadline=0.1, on_late="drop")
    slow = {name: {"p": 0.035} for name in TABLE}
    idle = {name: {"p": 1e-6} for name in TABLE}
    busy = simulate(found, Plan.of(machine(slow)), make_policy("fcfs")).run_counts
    free = simulate(found, Plan.of(machine(idle)), make_policy("fcfs")).run_counts
    assert busy.models["a"].others[Outcome.DROPPED] > 50
    assert not free.withheld
    for name in "abc":
        frames = busy.models[name].submitted + busy.withheld.get(name, 0)
        assert frames == free.models[name].submitted
    assert busy.withheld["b"] > 0


def test_a_simulation_with_cascades_repeats_to_the_last_bit() -> None:
    spreads = {(m, p): 0.7 for m in TABLE for p in ("p", "q")}
    runs = [play(machine(TABLE, spreads=spreads), wanted(seed=3), "sjf", seed=3) for _ in range(2)]
    assert runs[0].steps == runs[1].steps


def test_a_follower_of_the_last_frame_is_still_counted() -> None:
    late = scenario({"a": {"periodic": 1}, "b": {"after": "a"}}, duration=3.0)
    slow = machine({"a": {"p": 0.9}, "b": {"q": 0.9}})
    run_counts = simulate(late, Plan.of(slow), make_policy("fcfs")).run_counts
    assert [run_counts.models[name].completed for name in "ab"] == [3, 3]
