"""Fused variants in virtual time: what they bring, the bound beside that, and logs of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coinfer.bound import throughput_bound
from coinfer.core.dispatcher import Limits
from coinfer.experiments.certificate import certify
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.metrics.summary import summarise
from coinfer.metrics.table import fused_lines
from coinfer.plan import Plan, PolicyChoice
from coinfer.plan.fused_plan import FusedPlan
from coinfer.plan.variant import GraphFile
from coinfer.policies import policy_names
from coinfer.replay import LogHeader, recording, replay
from coinfer.sim import simulate
from coinfer.workload.scenario import Scenario

NAMES = ("a", "b", "c", "d")
OPTIONS: dict[str, dict[str, Any]] = {"fixed": {"assignment": dict.fromkeys(NAMES, "p")}}


def plan(policy: str = "fcfs", *, fused_s: float = 2.0, fused: bool = True) -> Plan:
    processors = (Processor(name="p", backend="imagined", units=frozenset({"p"})),)
    seconds = {**{name: {"p": 1.0} for name in NAMES}, "all": {"p": fused_s}}
    machine = Machine(processors=processors, profile=Profile.from_seconds(seconds))
    choice = PolicyChoice(name=policy, options=OPTIONS.get(policy, {}))
    made = Plan.of(machine, models=NAMES, policy=choice)
    if not fused:
        return made
    graph = GraphFile("", "")
    return made.with_fused("all", FusedPlan(models=NAMES, graph=graph, processors=("p",)))


def scenario(arrivals: Any, **fields: Any) -> Scenario:
    return Scenario.model_validate(
        {
            "models": {name: {"source": "zoo:lenet", **fields.pop(name, {})} for name in NAMES},
            "arrivals": dict.fromkeys(NAMES, arrivals),
            "admission_limit": 10**6,
            "duration": 1000.0,
            "warmup": 50.0,
            **fields,
        }
    )


@pytest.mark.parametrize("policy", policy_names())
def test_where_all_wait_the_bound_of_fused_runs_is_reached(policy: str) -> None:
    asked = scenario({"closed": 4})
    done = simulate(asked, plan(policy), deterministic=True)
    served = sum(each.served for each in done.run_counts.models.values()) / 1000.0
    bound = certify(asked, plan().machine, fused=plan().fused_models).bound.throughput_per_s
    assert bound == pytest.approx(2.0)  # four in two seconds
    assert served <= bound * 1.01
    assert served > 1.5, "it is hardly used"
    assert sum(done.run_counts.fused["all"].values()) > 100


def test_without_them_one_is_served_each_second() -> None:
    done = simulate(scenario({"closed": 4}), plan(fused=False), deterministic=True)
    assert sum(each.served for each in done.run_counts.models.values()) == pytest.approx(
        1000, abs=2
    )


def test_at_low_load_it_changes_little_and_at_high_load_it_keeps_up() -> None:
    means = {}
    for rate in (0.05, 0.4):
        for fused in (False, True):
            asked = scenario({"poisson": rate}, duration=4000.0)
            done = simulate(asked, plan(fused=fused), deterministic=True)
            counts = done.run_counts.models.values()
            means[rate, fused] = sum(c.latencies.mean_s() for c in counts) / len(NAMES)
    assert means[0.05, True] <= 1.05 * means[0.05, False]
    assert means[0.4, True] < 10 < means[0.4, False]


def test_the_bound_counts_those_that_are_asked_for() -> None:
    made = plan()
    arguments = made.measured, made.processors
    two = throughput_bound(*arguments, {"a": 1.0, "b": 1.0}, fused=made.fused_models)
    four = throughput_bound(*arguments, dict.fromkeys(NAMES, 1.0), fused=made.fused_models)
    assert two.throughput_per_s == pytest.approx(1.0)
    assert four.throughput_per_s == pytest.approx(2.0)


def test_results_say_how_many_shared_runs_and_what_was_padding() -> None:
    made = plan(fused_s=1.5)
    done = simulate(scenario({"poisson": 0.4}), made, deterministic=True)
    summary = summarise(
        done.run_counts,
        scenario="s",
        mode="simulate",
        policy="fcfs",
        seed=0,
        processors=made.processors,
        fused=made.fused_models,
    )
    row = summary.fused["all"]
    assert row.slots == 4
    assert row.padded == sum((4 - served) * runs for served, runs in row.served.items()) > 0
    (line,) = fused_lines(summary)
    assert line.startswith("all: ")
    assert line.endswith("% padding")
    assert type(summary).from_json(summary.to_json()) == summary


@pytest.mark.parametrize("policy", policy_names())
def test_a_recorded_run_leads_to_the_same_commands(policy: str, tmp_path: Path) -> None:
    made = plan(policy, fused_s=1.6)
    asked = scenario({"poisson": 0.35}, duration=300.0, a={"deadline": 6.0}, b={"deadline": 9.0})
    path = tmp_path / "log.gz"
    header = LogHeader(
        policy=policy,
        options=OPTIONS.get(policy, {}),
        processors=made.processors,
        limits=Limits(max_waiting=10**6),
    )
    with recording(path, header) as log:
        done = simulate(asked, made, observer=log)
    assert done.run_counts.fused
    replayed = replay(path)
    assert replayed.difference is None
