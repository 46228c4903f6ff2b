"""`coinfer compare`, and `--record` with `coinfer replay`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from coinfer.cli.compare import compare
from coinfer.cli.replay import replay
from coinfer.cli.run import run
from coinfer.cli.simulate import simulate
from coinfer.errors import ConfigurationError

app = typer.Typer()
for command in (run, simulate, compare, replay):
    app.command()(command)

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
policy: {name: sjf, patience_s: .inf}
"""


@pytest.fixture
def two(tmp_path: Path) -> Path:
    (tmp_path / "pair.yaml").write_text(MACHINE)
    path = tmp_path / "two.yaml"
    path.write_text(SCENARIO)
    return path


def call(*args: object, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def simulated(two: Path, policy: str, *more: object) -> Path:
    path = two.parent / f"{policy}.json"
    call("simulate", two, "--policy", policy, "--json", path, *more)
    return path


def test_two_policies_stand_side_by_side(two: Path) -> None:
    results = [simulated(two, policy) for policy in ("fcfs", "edf")]
    shown = call("compare", *results).stdout
    assert shown.startswith("two: fcfs, edf\n")
    assert "miss rate" in shown
    assert "points" in shown


def test_a_run_compared_with_itself_does_not_differ(two: Path) -> None:
    result = simulated(two, "fcfs")
    path = two.parent / "out.json"
    call("compare", result, result, "--json", path)
    rows = json.loads(path.read_text())["rows"]
    assert len(rows) == 11
    assert {difference for row in rows for difference in row["differences"]} == {0.0, None}


def test_files_that_cannot_be_compared_are_named(two: Path, tmp_path: Path) -> None:
    result = simulated(two, "fcfs")
    with pytest.raises(ConfigurationError, match=r"none\.json"):
        call("compare", result, tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    for text in ("{", "{}", "[]", "\udcff"):
        broken.write_text(text, errors="surrogateescape")
        with pytest.raises(ConfigurationError, match=r"broken\.json"):
            call("compare", result, broken)
    other = json.loads(result.read_text()) | {"scenario": "three"}
    broken.write_text(json.dumps(other))
    with pytest.raises(ConfigurationError, match="'two' and 'three'"):
        call("compare", result, broken)


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
def test_a_recorded_simulation_replays_identically(two: Path, tmp_path: Path, name: str) -> None:
    log = tmp_path / "logs" / name
    recorded = call("simulate", two, "--record", log)
    assert str(log) in recorded.stdout
    shown = call("replay", log).stdout
    assert shown.startswith("identical: two, policy sjf, ")


def test_recording_changes_no_figure(two: Path, tmp_path: Path) -> None:
    plain = simulated(two, "fcfs").read_text()
    assert simulated(two, "fcfs", "--record", tmp_path / "log.jsonl").read_text() == plain


def test_a_difference_is_one_line_and_status_1(two: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    call("simulate", two, "--record", log)
    log.write_text(log.read_text().replace('["SetTimer",', '["SetTimer",1', 1))
    (line,) = call("replay", log, status=1).stdout.splitlines()
    assert line.startswith("differs: step ")
    assert "SetTimer" in line


def test_a_recorded_run_replays_identically(
    tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(cache_folder))
    path = tmp_path / "tiny.yaml"
    path.write_text(
        'name: tiny\nmodels: {cnn: "zoo:tiny_cnn", mlp: "zoo:tiny_mlp"}\n'
        "arrivals: {cnn: {poisson: 100/s}, mlp: {closed: 2}}\nduration: 0.2s\nwarmup: 0.05s\n"
    )
    log = tmp_path / "log.jsonl.gz"
    call("run", path, "--record", log)
    assert call("replay", log).stdout.startswith("identical: tiny, policy earliest_finish, ")


def test_a_log_that_cannot_be_written_is_found_before_the_run(two: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot write"):
        call("simulate", two, "--record", tmp_path / "file" / "log.jsonl")
