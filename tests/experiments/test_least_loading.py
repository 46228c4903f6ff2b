"""The least time of loading for what a scenario asks: below what simulated schedules need."""

from __future__ import annotations

import dataclasses

import pytest

from coinfer.errors import ConfigurationError
from coinfer.experiments.least_loading import least_loading
from coinfer.machine.machine_file import parse_machine
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.sim import simulate
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import parse_scenario

MACHINE = parse_machine(
    "processors: {cpu0: {}}\ntimes:\n"
    "  a: {cpu0: {mean: 1ms, load: 20ms, memory: 100MiB}}\n"
    "  b: {cpu0: {mean: 2ms, load: 30ms, memory: 100MiB}}\n"
    "  c: {cpu0: {mean: 3ms, load: 80ms, memory: 200MiB}}\n"
)
OFFLINE = "offline: {counts: {a: 5, b: 5, c: 5}}"
MIX = "mix: {in_flight: 3}"


def ready(arrivals: str, memory: str, more: str = "") -> tuple[Plan, Scenario]:
    models = f"{{a: {{source: a.onnx{more}}}, b: {{source: b.onnx}}, c: {{source: c.onnx}}}}"
    end = "" if "offline" in arrivals else "duration: 20s\n"
    budget = f"memory: {memory}\n" if memory else ""
    scenario = parse_scenario(f"models: {models}\narrivals: {{{arrivals}}}\n{end}{budget}")
    return dataclasses.replace(Plan.of(MACHINE), memory=scenario.memory.budget), scenario


@pytest.mark.parametrize("arrivals", [OFFLINE, MIX])
@pytest.mark.parametrize("memory", ["200MiB", "300MiB"])
def test_no_simulated_schedule_loads_for_less(arrivals: str, memory: str) -> None:
    plan, scenario = ready(arrivals, memory)
    least_s = least_loading(plan, scenario)
    assert least_s is not None
    assert least_s > 0
    for policy in ("fcfs", "earliest_finish", "sjf"):
        done = simulate(scenario, plan, make_policy(policy), deterministic=True)
        served = sum(each.served for each in done.run_counts.models.values())
        assert done.run_counts.loads.load_s / served >= least_s


def test_it_is_unknown_without_a_budget_and_nothing_where_everything_fits() -> None:
    assert least_loading(*ready(MIX, "")) is None
    assert least_loading(*ready(MIX, "400MiB")) == 0.0


def test_what_may_be_dropped_bounds_nothing_but_a_run_that_is_over() -> None:
    dropping = ready(MIX, "200MiB", ", deadline: 10ms, on_late: drop")
    assert least_loading(*dropping) == 0.0
    found = least_loading(*dropping, served={"a": 10, "b": 10, "c": 10})
    assert found == pytest.approx(0.050 / 30)


def test_a_model_that_cannot_run_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="model 'c' needs at least 200 MiB"):
        least_loading(*ready(MIX, "150MiB"))
