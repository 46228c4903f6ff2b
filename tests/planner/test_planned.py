"""A scenario beside a saved plan: the same file by another path is the same model."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from coinfer.errors import ConfigurationError
from coinfer.machine.batching import Batching
from coinfer.plan.plan_folder import save_plan
from coinfer.planner.planned_scenario import planned_scenario
from coinfer.planner.prepare import prepare
from coinfer.profiling import Effort, Profiler
from coinfer.testing.models import fixed_batch, model_from_text, tiny_linear
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import load_scenario

TEXT = "models: {m: SOURCE}\narrivals: {m: {closed: 1}}\n"


def scenario(folder: Path, source: str) -> Scenario:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scenario.yaml"
    path.write_text(TEXT.replace("SOURCE", source))
    return load_scenario(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("m.onnx", "n.onnx"):
        onnx.save(onnx.load_from_string(tiny_linear().model.to_bytes()), tmp_path / name)
    ready = prepare(scenario(tmp_path, "m.onnx"), Profiler(effort=Effort(max_runs=2)))
    save_plan(ready.plan, tmp_path / "plans" / "plan")
    return tmp_path


def test_one_file_may_be_named_in_several_ways(folder: Path) -> None:
    for at, source in (("", "m.onnx"), ("sub", "../m.onnx"), ("", "sub/../m.onnx")):
        planned_scenario(scenario(folder / at, source), folder / "plans" / "plan")


@pytest.mark.parametrize("is_simulated", [True, False])
def test_another_file_is_another_model(folder: Path, is_simulated: bool) -> None:
    other = scenario(folder, "n.onnx")
    with pytest.raises(ConfigurationError, match=r"n\.onnx in the scenario and .*m\.onnx in the"):
        planned_scenario(other, folder / "plans" / "plan", is_simulated=is_simulated)


def test_a_plan_is_simulated_where_its_files_are_not(folder: Path, tmp_path: Path) -> None:
    moved = scenario(tmp_path / "else", "m.onnx")
    (folder / "m.onnx").unlink()
    planned_scenario(moved, folder / "plans" / "plan", is_simulated=True)
    with pytest.raises(ConfigurationError, match=r"n\.onnx in the scenario and"):
        planned_scenario(
            scenario(tmp_path / "else", "n.onnx"), folder / "plans" / "plan", is_simulated=True
        )


def test_a_request_to_a_model_of_fixed_batch_is_one_run_also_with_a_plan(tmp_path: Path) -> None:
    rows = model_from_text(
        "agraph (float[2,3] x) => (float[2,3] y) { y = Softmax <axis = 0> (x) }", name="m"
    )  # depend on each other
    onnx.save(onnx.load_from_string(rows.to_bytes()), tmp_path / "m.onnx")
    wanted = scenario(tmp_path, "{source: m.onnx, batch: 2}")
    ready = prepare(wanted, Profiler(effort=Effort(max_runs=2)))
    save_plan(ready.plan, tmp_path / "plan")
    planned = planned_scenario(wanted, tmp_path / "plan", is_simulated=True)
    assert ready.as_run.models["m"].batch == planned.as_run.models["m"].batch == 1


def test_a_request_to_a_file_of_a_true_batch_counts_its_samples_also_with_a_plan(
    tmp_path: Path,
) -> None:
    onnx.save(onnx.load_from_string(fixed_batch().model.to_bytes()), tmp_path / "m.onnx")
    wanted = scenario(tmp_path, "{source: m.onnx, batch: 1}")
    ready = prepare(wanted, Profiler(effort=Effort(max_runs=2)))
    save_plan(ready.plan, tmp_path / "plan")
    planned = planned_scenario(wanted, tmp_path / "plan", is_simulated=True)
    assert {feed["x"].shape for feed in ready.feeds["m"]} == {(1, 3)}
    assert ready.as_run.models["m"].batch == planned.as_run.models["m"].batch == 1
    assert ready.plan.models["m"].batching == planned.plan.models["m"].batching == Batching(2)
