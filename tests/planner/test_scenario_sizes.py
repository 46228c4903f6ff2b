"""Sizes of open dimensions in scenarios: what fills them in, and what follows from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coinfer.bound import throughput_bound
from coinfer.errors import UnknownNameError
from coinfer.experiments.certificate import certify
from coinfer.model import load_model
from coinfer.plan.plan_folder import save_plan
from coinfer.planner.planned_scenario import planned_scenario
from coinfer.planner.prepare import prepare
from coinfer.planner.scenario_sizes import with_sizes
from coinfer.profiling import Effort, Profiler
from coinfer.sim import simulate
from coinfer.testing.models import model_from_text
from coinfer.workload.request_shapes import request_shapes
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import load_scenario, parse_scenario
from coinfer.workload.size_rotation import size_rotation

pytest.importorskip("onnxruntime")

QUICK = Effort(warmup_runs=1, min_runs=1, max_runs=2)


def scenario_in(folder: Path, dims: str, extra: str = "") -> Path:
    """Write a network of open height and width, and a scenario of it."""
    network = "m (float[n,2,h,w] x) => (float[n,2,h,w] y) { y = Relu(x) }"
    (folder / "net.onnx").write_bytes(model_from_text(network, name="net").to_bytes())
    path = folder / "sizes.yaml"
    path.write_text(
        f"models: {{net: {{source: net.onnx{dims}}}}}\n"
        "processors: [{name: p, backend: onnxruntime, cores: [0]}]\n"
        "arrivals: {net: {periodic: 100/s}}\nduration: 2s\nwarmup: 0s\n" + extra
    )
    return path


def test_what_a_scenario_leaves_open_is_guessed_and_the_rest_is_as_stated(tmp_path: Path) -> None:
    path = scenario_in(tmp_path, ", dims: {w: [32, 64]}")
    ready = prepare(load_scenario(path), Profiler(effort=QUICK))
    [warning] = [each for each in ready.plan.warnings if "guess" in each]
    assert "h=224;" in warning
    assert {feed["x"].shape for feed in ready.feeds["net"]} == {(1, 2, 224, 32), (1, 2, 224, 64)}
    assert ready.plan.models["net"].sizes == ({"h": 224, "w": 32}, {"h": 224, "w": 64})


def test_the_command_line_goes_before_the_scenario(tmp_path: Path) -> None:
    path = scenario_in(tmp_path, ", dims: {w: [32, 64]}")
    ready = prepare(load_scenario(path), Profiler(effort=QUICK), dims={"w": 8, "h": 4})
    assert {feed["x"].shape for feed in ready.feeds["net"]} == {(1, 2, 4, 8)}
    with pytest.raises(UnknownNameError, match="open dimension 'width'"):
        prepare(load_scenario(path), Profiler(effort=QUICK), dims={"width": 8})


def test_a_saved_plan_fills_in_what_it_was_measured_at(tmp_path: Path) -> None:
    path = scenario_in(tmp_path, ", dims: {w: [32, 64]}")
    ready = prepare(load_scenario(path), Profiler(effort=QUICK))
    save_plan(ready.plan, tmp_path / "plan")
    for is_simulated in (True, False):
        again = planned_scenario(load_scenario(path), tmp_path / "plan", is_simulated=is_simulated)
        sizes = size_rotation(again.scenario.models["net"], "net", 0)
        assert {tuple(sorted(each.items())) for each in sizes} == {
            (("h", 224), ("w", 32)),
            (("h", 224), ("w", 64)),
        }


MACHINE = """
name: box
processors: {p: {}}
times: {net: {p: 10ms}}
"""


def described(dims: str, rate: str = "10/s") -> Scenario:
    return parse_scenario(
        f"models: {{net: {{source: net.onnx, dims: {dims}}}}}\n"
        f"arrivals: {{net: {{periodic: {rate}}}}}\nduration: 10s\nwarmup: 0s"
    )


def test_without_a_model_work_is_the_product_of_the_sizes() -> None:
    shapes = request_shapes(described("{h: 10, w: {10: 1, 20: 1}}"))["net"]
    assert sorted(set(shapes)) == [0, 4]  # 1.25 ** 4 is the first above 2
    assert len(shapes) == 1024


def test_wide_requests_take_longer_in_the_simulator_and_in_the_bound(tmp_path: Path) -> None:
    from coinfer.machine.machine_file import load_machine
    from coinfer.plan.plan import Plan

    (tmp_path / "box.yaml").write_text(MACHINE)
    machine = load_machine(tmp_path / "box.yaml")
    scenario = described("{w: {16: 3, 25: 1}}")
    plan = Plan.of(machine, models=scenario.models)
    done = simulate(scenario, plan, deterministic=True, keep_records=True)
    services = {round(e.service_s or 0, 6) for e in done.recorder.executions()}
    assert services == {0.01, 0.015625}
    mean_s = (3 * 0.01 + 0.015625) / 4
    assert certify(scenario, machine).bound.throughput_per_s == pytest.approx(1 / mean_s)
    plain = throughput_bound(machine.profile, machine.processors, {"net": 1})
    assert plain.throughput_per_s == pytest.approx(100)


def test_a_size_that_is_named_goes_before_all_choices() -> None:
    scenario = described("{w: {16: 3, 25: 1}}")
    settled = with_sizes(scenario, {"w": 8}, {"net": {"w", "h"}}, {"net": {"h": 4, "w": 1}})
    rotation = size_rotation(settled.models["net"], "net", 0)
    assert {tuple(sorted(each.items())) for each in rotation} == {(("h", 4), ("w", 8))}


def test_an_npz_of_one_sample_of_an_open_axis_is_read_whole(tmp_path: Path) -> None:
    from coinfer.planner.given_samples import read_samples

    text = "m (float[n,4] x) => (float[n,4] y) { y = Softmax<axis=0>(x) }"
    (tmp_path / "m.onnx").write_bytes(model_from_text(text, name="m").to_bytes())
    model = load_model(tmp_path / "m.onnx").with_batch(False)
    np.savez(tmp_path / "boxes.npz", x=np.zeros((7, 4), np.float32))
    assert [feed["x"].shape for feed in read_samples(model, tmp_path / "boxes.npz")] == [(7, 4)]
