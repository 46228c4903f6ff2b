"""Loads and evictions in virtual time."""

from __future__ import annotations

import dataclasses

import pytest

from coinfer.errors import ConfigurationError
from coinfer.machine.machine_file import parse_machine
from coinfer.metrics.trace import trace_events, write_trace
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.sim import Simulated, simulate
from coinfer.workload.scenario_file import parse_scenario

MACHINE = """
processors: {cpu0: {}}
times:
  a: {cpu0: {mean: 10ms, load: 50ms, memory: 100MiB}}
  b: {cpu0: {mean: 10ms, load: 50ms, memory: 100MiB}}
"""
SCENARIO = """
models: {a: x.onnx, b: y.onnx}
arrivals: {offline: {counts: {a: 4, b: 4}, order: grouped}}
"""


def simulated(memory: str) -> Simulated:
    scenario = parse_scenario(SCENARIO + (f"memory: {memory}\n" if memory else ""))
    plan = dataclasses.replace(
        Plan.of(parse_machine(MACHINE)), memory=scenario.memory.budget, pinned=scenario.memory.pin
    )
    policy = make_policy("fcfs")
    return simulate(scenario, plan, policy, deterministic=True, keep_records=True)


def test_with_room_for_one_model_the_other_is_loaded_once() -> None:
    done = simulated("100MiB")
    assert done.run_counts.duration_s == pytest.approx(8 * 0.010 + 0.050)
    loads = done.run_counts.loads
    assert (loads.loads, loads.evictions, loads.loaded_bytes) == (1, 1, 100 << 20)
    assert loads.load_s == pytest.approx(0.050)


def test_with_room_for_both_it_is_as_without_a_budget() -> None:
    ample, none = simulated("200MiB"), simulated("")
    assert ample.run_counts.duration_s == none.run_counts.duration_s
    assert not ample.run_counts.loads
    assert list(ample.recorder.requests()) == list(none.recorder.requests())


def test_a_budget_too_small_is_one_clear_error() -> None:
    with pytest.raises(ConfigurationError, match="model 'a' needs at least 100 MiB at a time"):
        simulated("99MiB")


def test_what_is_pinned_is_loaded_once() -> None:
    done = simulated("{budget: 200MiB, pin: [b]}")
    assert not done.run_counts.loads
    with pytest.raises(ConfigurationError, match="'a' needs at least 100 MiB at a time beside"):
        simulated("{budget: 100MiB, pin: [b]}")


def test_loads_and_evictions_are_in_the_trace(tmp_path) -> None:  # type: ignore[no-untyped-def]
    done = simulated("100MiB")
    memory = done.recorder.memory()
    first, second = memory.loads
    (gone,) = memory.evictions
    assert (first.model, first.started_s, gone.model) == ("a", 0.0, "a")
    assert gone.at_s == second.started_s
    assert {dict(each.believed)["host"] for each in memory.samples} == {(100 << 20, 100 << 20)}
    write_trace(tmp_path / "t.json", requests=(), executions=(), processors=(), memory=memory)
    text = (tmp_path / "t.json").read_text()
    assert '"name":"evict a"' in text
    assert '"name":"loader"' in text
    assert not list(trace_events((), (), ()))[4:]
