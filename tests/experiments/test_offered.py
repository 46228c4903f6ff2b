"""The bound is that of the mix which is offered, or else of the mix which was served."""

from __future__ import annotations

from typing import Any

import pytest

from coinfer.experiments.offered import offered_optimum
from coinfer.machine.machine_file import parse_machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.metrics.counts import ModelCounts, RunCounts
from coinfer.metrics.latency import ExactLatencies
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.sim import simulate
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import parse_scenario

CPU = [Processor(name="p", backend="null", units=frozenset({"p"}))]
PROFILE = Profile.from_seconds({"a": {"p": 0.1}, "b": {"p": 0.3}})


def bound_per_s(*args: Any, **options: Any) -> float | None:
    """Return the throughput of the optimum."""
    optimum = offered_optimum(*args, **options)
    return None if optimum is None else optimum.bound.throughput_per_s


def scenario(arrivals: str, models: str = "{a: x.onnx, b: x.onnx}") -> Scenario:
    return parse_scenario(f"models: {models}\narrivals: {arrivals}\n")


def served(**counts: int) -> RunCounts:
    models = {name: ModelCounts(ExactLatencies) for name in counts}
    for name, count in counts.items():
        models[name].served = count
    return RunCounts(duration_s=1.0, models=models)


def test_a_stated_mix_decides_whatever_was_served() -> None:
    mix = scenario("{mix: {weights: {a: 3, b: 1}, in_flight: 2}}")
    assert Load(mix).offered_mix() == {"a": 0.75, "b": 0.25}
    assert bound_per_s(PROFILE, CPU, mix, served(a=1, b=3)) == pytest.approx(4 / 0.6)


def test_rates_are_a_mix() -> None:
    rates = scenario("{a: {periodic: 30/s}, b: {poisson: 10/s}}")
    assert Load(rates).offered_mix() == {"a": 0.75, "b": 0.25}


def test_where_the_policy_decides_the_mix_is_what_was_served() -> None:
    loops = scenario("{a: {closed: 1}, b: {closed: 1}}")
    assert bound_per_s(PROFILE, CPU, loops, served(a=6, b=2)) == pytest.approx(8 / 1.2)


def test_before_such_a_run_and_after_one_that_served_nothing_there_is_no_bound() -> None:
    loops = scenario("{a: {closed: 1}, b: {closed: 1}}")
    assert bound_per_s(PROFILE, CPU, loops) is None
    assert bound_per_s(PROFILE, CPU, loops, served(a=0, b=0)) is None


def test_requests_of_several_samples_take_the_time_of_that_batch() -> None:
    entries = {1: 0.1, 4: 0.2}
    profile = Profile(
        {ProfileKey("a", "p", n): Measurement(seconds=(s,)) for n, s in entries.items()}
    )
    four = scenario("{a: {closed: 1}}", "{a: {source: x.onnx, batch: 4}}")
    run_counts = served(a=5)
    assert bound_per_s(profile, CPU, four, run_counts) == pytest.approx(5.0)


def test_more_than_the_offered_mix_allows_is_measured_by_the_mix_that_was_served() -> None:
    rates = scenario("{a: {periodic: 30/s}, b: {periodic: 30/s}}")
    offered = offered_optimum(PROFILE, CPU, rates, served(a=2, b=2))
    assert offered is not None
    assert (offered.mix_of, offered.bound.throughput_per_s) == ("offered", pytest.approx(5.0))
    # All of b was dropped; 7 inferences in a second are no miracle.
    quick = offered_optimum(PROFILE, CPU, rates, served(a=7, b=0))
    assert quick is not None
    assert (quick.mix_of, quick.bound.throughput_per_s) == ("served", pytest.approx(10.0))


@pytest.mark.parametrize("policy", ["fcfs", "sjf", "earliest_finish", "heft"])
@pytest.mark.parametrize("rate", [5, 60, 400])
def test_no_simulation_of_open_and_closed_loops_exceeds_its_bound(policy: str, rate: int) -> None:
    machine = parse_machine(
        "processors: {p: {}, q: {}}\ntimes: {a: {p: 7ms, q: 20ms}, b: {p: 90ms, q: 130ms}}"
    )
    mixed = scenario(
        f"{{a: {{poisson: {rate}/s}}, b: {{closed: 2}}}}\nduration: 3s\nwarmup: 500ms",
        "{a: {source: x.onnx, deadline: 50ms, on_late: drop}, b: y.onnx}",
    )
    run_counts = simulate(mixed, Plan.of(machine), make_policy(policy)).run_counts
    optimum = offered_optimum(machine.profile, machine.processors, mixed, run_counts)
    assert optimum is not None
    assert optimum.mix_of == "served"
    served_per_s = sum(t.served for t in run_counts.models.values()) / run_counts.duration_s
    # All that can be added to the long run is what had been begun when the window began.
    begun_s = max(counts.begun_s for counts in run_counts.processors.values())
    most_per_s = optimum.bound.throughput_per_s * (1 + begun_s / run_counts.duration_s)
    assert served_per_s <= most_per_s * (1 + 1e-9)
