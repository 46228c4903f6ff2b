"""`coinfer simulate` on described machines and, with tiny models, on this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from coinfer.cli.simulate import simulate
from coinfer.errors import ConfigurationError, ScenarioError, UnknownNameError
from coinfer.metrics.summary import Summary

EXAMPLES = Path(__file__).parents[2] / "examples"

app = typer.Typer()
app.command()(simulate)

MACHINE = """\
name: pair
processors: {p: {}, q: {}}
times: {x: {p: 10ms, q: 20ms}, y: {p: 30ms, q: 15ms}}
cv: 0.3
"""
SCENARIO = """\
name: two
machine: pair.yaml
models: {x: {deadline: 100ms}, y: {}}
arrivals: {x: {poisson: 40}, y: {poisson: 30}}
duration: 5s
warmup: 1s
policy: fcfs
"""


@pytest.fixture
def two(tmp_path: Path) -> Path:
    (tmp_path / "pair.yaml").write_text(MACHINE)
    path = tmp_path / "two.yaml"
    path.write_text(SCENARIO)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scenario for this machine, with nothing measured yet."""
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "s.yaml"
    path.write_text(
        "models: {a: zoo:tiny_mlp, b: zoo:tiny_cnn}\narrivals: {mix: {in_flight: 2}}\n"
        "duration: 1s\nwarmup: 0\nprocessors: {backends: [onnxruntime]}\n"
    )
    return path


def run(*args: object) -> Result:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def report(folder: Path, *args: object) -> dict[str, Any]:
    path = folder / "out.json"
    run(*args, "--json", path)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_result_has_the_shape_of_a_real_run(two: Path, tmp_path: Path) -> None:
    found = report(tmp_path, two)
    summary = Summary.from_json(found)
    assert (summary.mode, summary.scenario, summary.policy) == ("simulate", "two", "fcfs")
    assert summary.duration_s == 5.0
    assert summary.environment["machine"] == "pair"
    assert list(summary.models) == ["x", "y"]
    assert summary.models["x"].deadline_hit_rate is not None
    assert set(summary.processors) == {"p", "q"}
    # Of the mix 4:3, t times over: p does x and some of y, q the rest of y; 0.13 t = 3.
    assert summary.bound.throughput_per_s == pytest.approx(7 * 3 / 0.13)
    assert 0 < (summary.bound.fraction or 0) < 1


def test_the_table_states_the_bound_beside_the_throughput(two: Path) -> None:
    assert "the bound for the offered mix" in run(two).stdout


def test_two_runs_write_the_same_bytes(two: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "1.json", tmp_path / "2.json"
    first, second = tmp_path / "1.trace.gz", tmp_path / "2.trace.gz"
    run(two, "--json", one, "--trace", first)
    run(two, "--json", other, "--trace", second)
    assert first.read_bytes() == second.read_bytes()
    a, b = json.loads(one.read_text()), json.loads(other.read_text())
    assert a["models"] == b["models"]
    assert a["processors"] == b["processors"]


def test_options_override_the_scenario(two: Path, tmp_path: Path) -> None:
    found = report(tmp_path, two, "--policy", "sjf", "--duration", "2s", "--seed", 7)
    assert (found["policy"], found["duration_s"], found["seed"]) == ("sjf", 2.0, 7)


def test_priorities_that_the_policy_does_not_look_at_are_told_once(
    two: Path, tmp_path: Path
) -> None:
    two.write_text(SCENARIO.replace("deadline: 100ms", "priority: 5"))
    warned = [text for text in report(tmp_path, two)["warnings"] if "priority" in text]
    assert warned == [
        "models differ in priority, which policy fcfs does not look at; "
        "--policy earliest_finish or priority goes by it"
    ]
    assert " ".join(run(two).stdout.split()).count(warned[0]) == 1
    followed = report(tmp_path, two, "--policy", "priority")["warnings"]
    assert not any("differ in priority" in text for text in followed)


def test_preemption_counts_as_looking_at_priorities(two: Path, tmp_path: Path) -> None:
    (tmp_path / "pair.yaml").write_text(MACHINE.replace("q: {}", "q: {}, p+: {overlays: [p]}"))
    two.write_text(SCENARIO.replace("deadline: 100ms", "deadline: 100ms, priority: 5"))
    assert not any("differ in priority" in text for text in report(tmp_path, two)["warnings"])


def test_the_trace_has_a_slice_per_execution_on_its_processor(two: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    found = report(tmp_path, two, "--trace", path)
    events = json.loads(path.read_text())["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    in_window = [e for e in slices if 1e6 <= e["ts"] + e["dur"] < 6e6]
    assert len(in_window) == sum(row["executions"] for row in found["processors"].values())


def test_a_machine_file_stands_in_for_the_scenarios(two: Path, tmp_path: Path) -> None:
    fast = tmp_path / "fast.yaml"
    fast.write_text("name: fast\nprocessors: {z: {}}\ntimes: {x: {z: 1ms}, y: {z: 1ms}}\n")
    found = report(tmp_path, two, "--machine", fast)
    assert list(found["processors"]) == ["z"]
    assert found["models"]["x"]["latency_ms"]["p50"] == pytest.approx(1.0, rel=0.01)


def test_a_rate_above_the_bound_runs_and_says_by_how_much(two: Path, tmp_path: Path) -> None:
    two.write_text(SCENARIO.replace("poisson: 40", "poisson: 400"))
    found = report(tmp_path, two)
    [warning] = [text for text in found["warnings"] if "above the bound" in text]
    # x gets p and what y leaves of q: 400 f = 100 + 50 (1 - 30 f 0.015), so f = 150 / 422.5.
    assert "the offered rates are 181.7% above the bound" in warning
    assert "at most 0.355" in warning
    assert found["totals"]["completed"] > 0


def test_a_model_that_no_processor_runs_is_named(two: Path) -> None:
    two.write_text(SCENARIO.replace("y: {}", "z: {}").replace("y: {poisson", "z: {poisson"))
    with pytest.raises(UnknownNameError, match=r"model 'z'.*Known: x, y.*No processor of machine"):
        run(two)


def test_a_bad_machine_file_names_its_line(two: Path, tmp_path: Path) -> None:
    (tmp_path / "pair.yaml").write_text(MACHINE.replace("q: 15ms", "r: 15ms"))
    with pytest.raises(ScenarioError, match=r"pair\.yaml:3: times\.y\.r: unknown processor 'r'"):
        run(two)


def test_a_plan_given_as_a_machine_is_recognised(two: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("format: coinfer-plan/1\nname: mine\npolicy: {name: edf}\n")
    with pytest.raises(ScenarioError, match=r"plan\.yaml: that is a plan, .* use --plan"):
        run(two, "--machine", tmp_path / "plan.yaml")


def test_a_duration_for_finite_counts_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="lasts until all is answered"):
        run(EXAMPLES / "etri-equal-mix.yaml", "--duration", "1s")


def test_a_processor_that_keeps_its_model_is_given_one(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(
        "processors: {p: {}, q: {one_model: true}}\n"
        "times: {x: {p: 10ms, q: 20ms}, y: {p: 30ms, q: 15ms}}\n"
    )
    (tmp_path / "s.yaml").write_text(
        "machine: m.yaml\nmodels: {x: {}, y: {}}\n"
        "arrivals: {offline: {counts: {x: 50, y: 50}}}\npolicy: fcfs\n"
    )
    found = report(tmp_path, tmp_path / "s.yaml")
    assert found["warnings"][0].startswith("q holds one model and has no load time")
    assert found["warnings"][0].endswith("keeps y")


def test_this_machine_is_measured_and_simulated(here: Path, tmp_path: Path) -> None:
    first, second = report(tmp_path, here), report(tmp_path, here)
    assert first["models"] == second["models"]
    assert first["totals"]["completed"] > 100
    assert 0 < first["bound"]["fraction"] < 1.02


def test_this_machine_is_calibrated_by_a_run(here: Path, tmp_path: Path) -> None:
    found = report(tmp_path, here, "--calibrate", "1s")
    assert any(text.startswith("calibrated: executions take ") for text in found["warnings"])


def test_a_calibration_of_no_time_is_refused(here: Path) -> None:
    with pytest.raises(ConfigurationError, match="a calibration of 0 s sees nothing; give it"):
        run(here, "--calibrate", "0s")


def test_a_machine_that_a_file_describes_cannot_be_calibrated(two: Path) -> None:
    with pytest.raises(ConfigurationError, match="only this machine can be calibrated"):
        run(two, "--calibrate", "1s")
