"""`coinfer scenarios` lists and shows the library."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from coinfer.cli.scenarios import scenarios_app
from coinfer.errors import UnknownNameError
from coinfer.scenarios import library
from coinfer.workload.scenario_file import load_scenario


def run(*args: object) -> Result:
    result = CliRunner().invoke(scenarios_app, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_the_list_has_every_scenario_and_machine() -> None:
    shown = run("list").stdout
    for name in (*library.scenario_names(), *library.machine_names()):
        assert f"lib:{name}" in shown


def test_the_list_tells_what_is_offered() -> None:
    rows = {line.split()[0]: line for line in run("list").stdout.splitlines() if line.strip()}
    assert "15,000 at once" in rows["lib:etri-equal-mix"]
    assert " 100/s + 1 closed " in rows["lib:disb-a"]
    assert " 2 closed " in rows["lib:disb-b"]
    # 3 + 3 x 0.2 + 10 + 30
    assert " 43.6/s " in rows["lib:xrbench-outdoor-activity-a"]


@pytest.mark.parametrize("name", ["gpulet-traffic", "lib:gpulet-traffic"])
def test_a_shown_scenario_is_the_file(name: str) -> None:
    assert run("show", name).stdout == library.scenario_path("lib:gpulet-traffic").read_text()


@pytest.mark.parametrize("name", library.scenario_names())
def test_a_written_scenario_is_the_same_scenario_elsewhere(name: str, tmp_path: Path) -> None:
    run("show", name, "-o", tmp_path / "mine.yaml")
    assert load_scenario(tmp_path / "mine.yaml") == load_scenario(f"lib:{name}")


def test_an_unknown_scenario_is_named() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'gpulet-game'"):
        run("show", "gpulet-gam")
