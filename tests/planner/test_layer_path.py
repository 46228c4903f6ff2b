"""Batch sizes of the parts of a cut model: found by the shortest path, kept, and held to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coinfer.api import Engine
from coinfer.core.commands import Run
from coinfer.errors import ScenarioError
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.machine.batching import Batching
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.plan import Plan, PolicyChoice
from coinfer.plan.plan_folder import load_plan, save_plan
from coinfer.planner.layer_path import layer_path, parts_of
from coinfer.planner.model_source import resolve_model
from coinfer.planner.passes.batching import chosen_batching
from coinfer.sim import simulate
from coinfer.workload.batch_spec import BatchSpec
from coinfer.workload.scenario import Scenario

CPU = Processor(name="cpu", backend="onnxruntime", units=frozenset({"core0"}))
TIMES = {
    # An early part gains nothing, a late one much.
    Span(0, 0): {1: 0.010, 2: 0.022, 4: 0.048, 8: 0.100},
    Span(1, 1): {1: 0.010, 2: 0.011, 4: 0.012, 8: 0.014},
    Span(0, 1): {1: 0.019, 2: 0.032, 4: 0.058, 8: 0.112},
}


def plan(processor: Processor = CPU, **fields: Any) -> Plan:
    entries = {
        ProfileKey("m", "cpu", batch, span): Measurement(
            seconds=(seconds,), resident_bytes=1000, load_s=0.01
        )
        for span, row in TIMES.items()
        for batch, seconds in row.items()
    }
    return Plan.of(Machine(processors=(processor,), profile=Profile(entries)), **fields)


def test_parts_are_the_smallest_spans_that_lead_through() -> None:
    assert [part.span for part in parts_of(plan(), "m")] == [Span(0, 0), Span(1, 1)]


def test_each_part_gets_its_own_size_and_the_plan_says_so(tmp_path: Path) -> None:
    made = plan()
    found, choice = chosen_batching(made, "m", BatchSpec())
    assert found == Batching(8, by_unit=(1, 8))
    # 16 x 10 + 2 x 14 ms of 16 x 20 ms; loading is over by then.
    assert "units 0 at 1, 1 at 8: 16 that wait take 0.59x of one run each" in str(choice)
    assert "batch 8: " in str(choice)
    save_plan(made.with_batching("m", found, choice), tmp_path / "plan")
    assert load_plan(tmp_path / "plan").plan.models["m"].batching == found
    text = (tmp_path / "plan" / "plan.yaml").read_text()
    (tmp_path / "plan" / "plan.yaml").write_text(text.replace("[1, 8]", "[1, 8, 8]"))
    with pytest.raises(ScenarioError, match="3 numbers, and the model has 2 units"):
        load_plan(tmp_path / "plan")


def test_what_is_kept_between_parts_costs_where_the_size_changes() -> None:
    free = layer_path(plan(), "m", 8)
    dear = layer_path(plan(), "m", 8, kept=[0, 10**10, 0])
    assert free is not None
    assert dear is not None
    assert free.by_unit == (1, 8)
    assert len(set(dear.by_unit)) == 1


def test_a_budget_counts_what_is_loaded_again_in_every_pass() -> None:
    ample = layer_path(plan(), "m", 8)
    tight = layer_path(dataclasses.replace(plan(), memory={"host": 1100}), "m", 8)
    assert ample is not None
    assert tight is not None
    assert ample.path.cost.load_s == 0
    assert tight.path.cost.load_s == pytest.approx(0.02)  # each part once, one after the other
    assert layer_path(dataclasses.replace(plan(), memory={"host": 900}), "m", 8) is None


def test_the_budget_is_that_of_the_memory_in_which_the_parts_are() -> None:
    on_gpu = plan(dataclasses.replace(CPU, device="CUDA:0"))
    sizes = [
        layer_path(dataclasses.replace(on_gpu, memory={memory: 900}), "m", 8)
        for memory in ("host", "CUDA:0")
    ]
    assert sizes[0] is not None
    assert sizes[1] is None


def test_executions_keep_to_it() -> None:
    """The second part is on a processor of its own that is too slow for one after the other."""
    npu = Processor(name="npu", backend="imagined", units=frozenset({"npu"}))
    entries = {
        ProfileKey("m", at, batch, span): Measurement(seconds=(factor * seconds,))
        for at, span, factor in [("cpu", Span(0, 0), 1), ("npu", Span(1, 1), 2)]
        for batch, seconds in TIMES[span].items()
    }
    machine = Machine(processors=(CPU, npu), profile=Profile(entries))
    made = Plan.of(machine, policy=PolicyChoice(name="fcfs"))
    scenario = Scenario.model_validate(
        {
            "models": {"m": {"source": "m.onnx", "partition": {"mode": "merged"}}},
            "arrivals": {"m": {"poisson": 80.0}},
            "duration": 20.0,
        }
    )
    for sizes in [(1, 8), (4, 2)]:
        batching = Batching(max(sizes), by_unit=sizes)
        done = simulate(
            scenario, made.with_batching("m", batching), keep_records=True, deterministic=True
        )
        served: dict[Span, int] = {}
        for each in done.recorder.executions():
            served[each.span] = max(served.get(each.span, 0), each.batch)
        assert served[Span(0, 0)] == 1  # more gain nothing there
        assert 1 < served[Span(1, 1)] <= sizes[1]


def test_the_parts_of_a_real_model_are_measured_and_answers_are_right() -> None:
    model = resolve_model("zoo:lenet", name="m")
    seen: list[tuple[Span, int]] = []

    class Watch:
        def observe(self, event: Any, commands: Any, now: float) -> None:
            seen.extend((c.execution.span, c.execution.batch) for c in commands if type(c) is Run)

    cut = PartitionOptions(mode=Mode.MERGED, pieces=3)
    feeds = [model.sample_inputs(seed=seed) for seed in range(24)]
    with Engine({"m": model}, processors=[CPU], batch="off") as engine:
        expected = [engine.infer("m", feed) for feed in feeds]
    with Engine(
        {"m": model}, processors=[CPU], partition=cut, batch={"max": 8}, observer=Watch()
    ) as engine:
        batching = engine.plan.models["m"].batching
        assert batching is not None
        times = {key.batch for key, each in engine.plan.measured if not each.estimated}
        assert {1, 2, 4, 8} <= times
        futures = [engine.submit("m", feed) for feed in feeds]
        for future, right in zip(futures, expected, strict=True):
            for name, value in future.result(20.0).items():
                np.testing.assert_allclose(value, right[name], rtol=1e-3, atol=1e-4)
    assert all(size <= batching.at(span) for span, size in seen)
