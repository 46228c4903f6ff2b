"""`coinfer saturate` on a described machine and, with a tiny model, on this one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from coinfer.cli.saturate import _trial_line, saturate
from coinfer.errors import ConfigurationError
from coinfer.experiments.saturation import Kept, Quality, Trial

app = typer.Typer()
app.command()(saturate)

SCENARIO = """\
name: camera
machine: m.yaml
models: {x: {source: "zoo:tiny_mlp", deadline: period, on_late: drop}}
arrivals: {x: {periodic: 40/s}}
duration: 5s
warmup: 0
policy: fcfs
"""


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    (tmp_path / "m.yaml").write_text("name: one\nprocessors: {p: {}}\ntimes: {x: {p: 10ms}}\n")
    path = tmp_path / "camera.yaml"
    path.write_text(SCENARIO)
    return path


def run(*args: object) -> Result:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def found(folder: Path, *args: object) -> dict[str, Any]:
    path = folder / "out.json"
    run(*args, "--json", path)
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def test_the_factor_is_the_known_one(camera: Path, tmp_path: Path) -> None:
    read = found(tmp_path, camera, "--simulate", "--hit-rate", "1", "--precision", "0.001")
    assert read["factor"] <= 2.5 * (1 + 1e-9)
    assert read["broken_at"] >= 2.5 * (1 - 1e-9)
    assert read["precision"] <= 0.001
    assert read["bound_factor"] == pytest.approx(2.5)
    assert (read["mode"], read["machine"], read["policy"]) == ("simulate", "one", "fcfs")
    assert read["kept"] == {"quality": "hit_rate", "least": 1.0}


def test_a_trial_says_how_many_requests_shared_runs() -> None:
    kept = Kept(quality=Quality.HIT_RATE, least=0.95)
    trial = Trial(factor=1.5, passed=True, shares={"m": 0.99}, shared={"m": {2: 3, 6: 1}})
    line = "  x 1.5: hit rate 99.00% in m, shared runs serve 3.0 of m: kept"
    assert _trial_line(trial, kept) == line
    assert _trial_line(dataclasses.replace(trial, shared={}), kept) == (
        "  x 1.5: hit rate 99.00% in m: kept"
    )


def test_each_trial_and_the_answer_are_printed(camera: Path) -> None:
    lines = run(camera, "--simulate").stdout.splitlines()
    assert lines[0] == "camera on one, policy fcfs"
    trials = [line for line in lines if line.startswith("  x ")]
    assert len(trials) > 3
    assert all(line.endswith((": kept", ": broken")) for line in trials)
    assert "QoE >= 0.95 in every model; at " in lines[-2]
    assert lines[-1] == "by the bound, no schedule can serve all requests at more than 2.5"


def test_two_searches_print_the_same(camera: Path) -> None:
    assert run(camera, "--simulate").stdout == run(camera, "--simulate").stdout


def test_options_override_the_scenario(camera: Path, tmp_path: Path) -> None:
    fast = tmp_path / "fast.yaml"
    fast.write_text("name: fast\nprocessors: {p: {}}\ntimes: {x: {p: 1ms}}\n")
    options = ["--machine", fast, "--policy", "edf", "--seed", 3, "--duration", "2s"]
    read = found(tmp_path, camera, "--simulate", *options)
    assert (read["machine"], read["policy"], read["seed"]) == ("fast", "edf", 3)
    assert read["bound_factor"] == pytest.approx(25)


def test_a_scenario_of_the_library_is_found(tmp_path: Path) -> None:
    read = found(tmp_path, "lib:etri-equal-rates", "--simulate", "--duration", "3s")
    assert read["scenario"] == "etri-equal-rates"
    assert 0.5 < read["factor"] < 1.4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--qoe", "0.9", "--hit-rate", "0.9"], "both given"),
        (["--machine", "m.yaml"], "add --simulate"),
        (["--simulate", "--qoe", "2"], "must be in 0..1, is 2"),
        (["--simulate", "--precision", "0"], "precision must be greater than 0"),
    ],
)
def test_options_that_contradict_are_refused(
    camera: Path, options: list[str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run(camera, *options)


@pytest.mark.alone
def test_trials_on_this_machine(
    camera: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "cache"))
    camera.write_text(SCENARIO.replace("policy: fcfs", "processors: {backends: [onnxruntime]}"))
    options = ["--duration", "0.2s", "--precision", "3", "--qoe", "0.5"]
    read = found(tmp_path, camera, *options)
    assert (read["mode"], read["machine"]) == ("run", "this machine")
    assert read["factor"] > 1
    tried = max(trial["factor"] for trial in read["trials"])
    assert tried * 40 <= 100_000, "no caller submits so many per second"
