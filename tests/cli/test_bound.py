"""`coinfer bound`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from coinfer.cli.bound import bound
from coinfer.errors import ConfigurationError, UnknownNameError

EXAMPLES = Path(__file__).parents[2] / "examples"
EQUAL_MIX = EXAMPLES / "etri-equal-mix.yaml"

app = typer.Typer()
app.command()(bound)


def run(*args: object) -> str:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def report(tmp_path: Path, arrivals: str, machine: str) -> dict[str, Any]:
    (tmp_path / "m.yaml").write_text(machine)
    names = "{x: {}, y: {}}" if "y" in arrivals or "mix" in arrivals else "{x: {}}"
    text = f"machine: m.yaml\nmodels: {names}\narrivals: {arrivals}\n"
    (tmp_path / "s.yaml").write_text(text)
    run(tmp_path / "s.yaml", "--json", tmp_path / "out.json")
    found: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    return found


PAIR = "processors: {p: {}, q: {}}\ntimes: {x: {p: 10ms, q: 20ms}, y: {p: 30ms, q: 15ms}}\n"


def test_the_equal_mix_of_the_reference_table(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    text = run(EQUAL_MIX, "--json", path)
    found = json.loads(path.read_text())
    assert found["throughput_per_s"] == pytest.approx(101.057, abs=0.001)
    assert found["per_model_per_s"] == pytest.approx(dict.fromkeys(found["mix"], 33.6858), abs=1e-3)
    assert found["shares"]["NCS2"] == pytest.approx(
        {"ResNet50": 0.791, "ResNet101": 0.209}, abs=1e-3
    )
    assert found["shares"]["TPU"] == pytest.approx(
        {"MobileNetV2": 0.114, "ResNet50": 0.886}, abs=1e-3
    )
    assert sum(found["prices"].values()) == pytest.approx(found["throughput_per_s"])
    assert found["one_model"]["throughput_per_s"] == pytest.approx(100.756, abs=0.001)
    assert found["makespan"] is None
    for part in ("101.057", "if NCS2 keeps one model: 100.756/s", "79.1%", "33.686/s"):
        assert part in text


def test_open_rates_have_a_largest_sustainable_factor(tmp_path: Path) -> None:
    found = report(tmp_path, "{x: {poisson: 50}, y: {poisson: 50}}", PAIR)
    # p all x: 100/s; q all y: 66.7/s; q is the limit, p helps it: p gives 1/6 of its time to y.
    assert found["sustainable_factor"] == pytest.approx(found["throughput_per_s"] / 100)
    assert found["sustainable_factor"] == pytest.approx(1.5, abs=0.01)
    assert found["warnings"] == []


def test_rates_above_the_bound_are_reported_with_the_excess(tmp_path: Path) -> None:
    found = report(tmp_path, "{x: {poisson: 150}, y: {poisson: 150}}", PAIR)
    [warning] = found["warnings"]
    assert warning.startswith("the offered rates are 100.0% above the bound")


def test_few_counts_have_an_exact_makespan(tmp_path: Path) -> None:
    found = report(tmp_path, "{offline: {counts: {x: 5, y: 3}}}", PAIR)
    assert found["makespan"]["seconds"] == pytest.approx(0.05)
    assert found["makespan"]["proven"]
    assert found["makespan"]["counts"] == {"p": {"x": 5}, "q": {"y": 3}}


def test_without_a_stated_mix_an_equal_one_is_assumed(tmp_path: Path) -> None:
    found = report(tmp_path, "{x: {closed: 1}, y: {closed: 1}}", PAIR)
    assert not found["mix_is_known"]
    assert found["mix"] == {"x": 0.5, "y": 0.5}


def test_a_processor_that_keeps_its_model_limits_the_bound(tmp_path: Path) -> None:
    kept = PAIR.replace("p: {},", "p: {one_model: true},", 1)
    found = report(tmp_path, "{mix: {in_flight: 4}}", kept)
    free = report(tmp_path, "{mix: {in_flight: 4}}", PAIR)
    assert found["throughput_per_s"] < free["throughput_per_s"]
    assert found["shares"]["p"].keys() == {"x"}


def test_a_model_that_no_processor_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"model 'y'.*No processor of machine"):
        report(tmp_path, "{mix: {in_flight: 1}}", "processors: {p: {}}\ntimes: {x: {p: 1ms}}\n")


def test_models_that_find_no_room_are_refused(tmp_path: Path) -> None:
    one = "processors: {p: {one_model: true}}\ntimes: {x: {p: 1ms}, y: {p: 1ms}}\n"
    with pytest.raises(ConfigurationError, match="hold one model only cannot hold all of"):
        report(tmp_path, "{mix: {in_flight: 1}}", one)
