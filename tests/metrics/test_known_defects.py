"""What must hold of figures, because it did not in a public benchmark of scheduling by spans.

There, the next period began when a request was answered, dropped requests counted as 0 ms, the
share of kept deadlines ignored them, and there were means only.
"""

from __future__ import annotations

import pytest

from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.metrics.summary import ModelSummary, summarise
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.sim import simulate
from coinfer.workload.scenario import Scenario


def figures(arrival: dict[str, float], service_s: float, **promise: object) -> ModelSummary:
    """Figures of one model on one processor with constant times over 10 s, records kept."""
    cpu = Processor(name="cpu", backend="imagined", units=frozenset({"core"}))
    machine = Machine(processors=(cpu,), profile=Profile.from_seconds({"m": {"cpu": service_s}}))
    scenario = Scenario.model_validate(
        {
            "models": {"m": {"source": "zoo:lenet", **promise}},
            "arrivals": {"m": arrival},
            "duration": 10.0,
            "warmup": 0.0,
        }
    )
    done = simulate(scenario, Plan.of(machine), make_policy("fcfs"), keep_records=True)
    summary = summarise(
        done.run_counts, scenario="s", mode="simulate", policy="fcfs", seed=0, processors=(cpu,)
    )
    return summary.models["m"]


def test_a_period_does_not_wait_for_the_answer() -> None:
    # 10 per second for 10 s, though each takes half a period and has to be answered in between.
    assert figures({"periodic": 10.0}, 0.05).submitted == 100


def test_a_dropped_request_has_no_latency() -> None:
    # Twice as many as can be served: every second one is dropped, none of them counts as 0 ms.
    model = figures({"periodic": 20.0}, 0.1, deadline=0.11, on_late="drop")
    assert model.dropped > 90
    assert model.completed + model.dropped == model.submitted == 200
    assert model.latency_ms.p50 is not None
    assert model.latency_ms.p50 >= 100.0


def test_a_dropped_request_misses_its_deadline() -> None:
    model = figures({"periodic": 20.0}, 0.1, deadline=0.11, on_late="drop")
    in_time = model.completed - model.late
    assert model.deadline_hit_rate == pytest.approx(in_time / model.submitted)
    assert model.deadline_hit_rate < 0.55


def test_quantiles_are_those_of_the_requests_and_not_of_a_mean() -> None:
    # Bursts: one in four waits for nobody, the last of four for three others.
    model = figures({"gamma": 20.0, "cv": 3.0}, 0.03)
    latency = model.latency_ms
    assert latency.p50 is not None
    assert latency.mean is not None
    assert latency.p99 is not None
    assert latency.p50 < latency.mean < latency.p99
