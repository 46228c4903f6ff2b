"""Batching in virtual time: against the closed form of a queue, and what it does to throughput."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest

from coinfer.bound import throughput_bound
from coinfer.machine.batching import Batching
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.plan import Plan, PolicyChoice
from coinfer.sim import simulate
from coinfer.workload.request_shapes import request_sizes
from coinfer.workload.scenario import Scenario

SLOPE_S, BASE_S = 1.0, 2.0
MOST = 512
REPLICATIONS = 10
T_999 = 4.781
"""Two-sided 99.9 % quantile of Student's t with 9 degrees of freedom."""


def machine(*names: str, slope_s: float = SLOPE_S, base_s: float = BASE_S) -> Machine:
    return Machine(
        processors=tuple(
            Processor(name=n, backend="imagined", units=frozenset({n})) for n in names or ("p",)
        ),
        profile=Profile(
            {
                ProfileKey("x", name, batch): Measurement(seconds=(base_s + slope_s * batch,))
                for name in names or ("p",)
                for batch in (1, MOST)
            }
        ),
    )


def latencies(rate_per_s: float, seed: int, *, most: int = MOST, **fields: Any) -> list[float]:
    models = {"x": {"source": "zoo:lenet", **fields.pop("model", {})}}
    scenario = Scenario.model_validate(
        {
            "models": models,
            "arrivals": {"x": {"poisson": rate_per_s}},
            "admission_limit": 10**6,
            "duration": 6000.0,
            "warmup": 300.0,
            "seed": seed,
            **fields,
        }
    )
    plan = Plan.of(machine(), policy=PolicyChoice(name="fcfs"))
    if most:
        plan = plan.with_batching("x", Batching(most))
    done = simulate(scenario, plan, keep_records=True, deterministic=True)
    return [r.latency_s for r in done.recorder.requests() if r.latency_s is not None]


def closed_form_s(rate: float) -> float:
    """Upper bound of the mean latency if all that waits is served at once (Inoue, 1912.06322)."""
    a, t0, r = SLOPE_S, BASE_S, rate
    first = (a + t0) / (2 * (1 - r * a)) * (1 + 2 * r * t0 + (1 - r * t0) / (1 + r * a))
    second = 1.5 * t0 / (1 - r * a) + a / 2 * (r * a + 2) / (1 - r**2 * a**2)
    return min(first, second)


@pytest.mark.parametrize(("rate", "known_s"), [(0.3, 5.07), (0.6, 9.44)])
def test_the_rule_serves_what_waits_as_the_closed_form_says(rate: float, known_s: float) -> None:
    means = [statistics.fmean(latencies(rate, seed)) for seed in range(REPLICATIONS)]
    half_s = T_999 * statistics.stdev(means) / math.sqrt(len(means))
    assert half_s < 0.1 * known_s, "the bounds are too wide to say anything"
    assert abs(statistics.fmean(means) - known_s) <= half_s
    assert statistics.fmean(means) - half_s <= closed_form_s(rate)


def test_without_riders_that_load_has_no_end() -> None:
    assert 1 / (SLOPE_S + BASE_S) < 0.6
    with_them = statistics.fmean(latencies(0.6, 0))
    assert statistics.fmean(latencies(0.6, 0, most=0)) > 20 * with_them


def test_two_simulations_take_the_same_steps() -> None:
    assert latencies(0.6, 3, duration=500.0) == latencies(0.6, 3, duration=500.0)


def test_the_bound_has_columns_for_batches() -> None:
    board = machine("p", "q")
    mix = {"x": 1.0}
    alone = throughput_bound(board.profile, board.processors, mix)
    assert alone.throughput_per_s == pytest.approx(2 / 3)
    eight = throughput_bound(board.profile, board.processors, mix, together={"x": 8})
    assert eight.throughput_per_s == pytest.approx(2 * 8 / 10)
    pairs = throughput_bound(
        board.profile, board.processors, mix, batches={"x": 2}, together={"x": 8}
    )
    assert pairs.throughput_per_s == pytest.approx(2 * 4 / 10)


def test_sizes_that_differ_are_not_stacked() -> None:
    plan = Plan.of(machine(), policy=PolicyChoice(name="fcfs"))
    plan = plan.with_batching("x", Batching(16))
    dims = {"dims": {"width": {100: 1, 101: 1}}}
    scenario = Scenario.model_validate(
        {
            "models": {"x": {"source": "x.onnx", **dims}},
            "arrivals": {"x": {"poisson": 0.6}},
            "duration": 500.0,
            "warmup": 0.0,
        }
    )
    done = simulate(scenario, plan, keep_records=True, deterministic=True)
    numbers = request_sizes(scenario)["x"]
    together = [each.request_ids for each in done.recorder.executions() if each.batch > 1]
    assert together
    for ids in together:
        assert len({numbers[number % len(numbers)] for number in ids}) == 1
