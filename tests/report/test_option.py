"""The option `--report` of `coinfer simulate` and `coinfer compare`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from coinfer.cli.compare import compare
from coinfer.cli.simulate import simulate
from coinfer.errors import ConfigurationError
from report.samples import charts

app = typer.Typer()
app.command()(simulate)


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    (tmp_path / "pair.yaml").write_text(
        "name: pair\nprocessors: {p: {}, q: {}}\ntimes: {x: {p: 10ms, q: 20ms}}\n"
    )
    path = tmp_path / "one.yaml"
    path.write_text(
        "# as it was given <&>\nmachine: pair.yaml\nmodels: {x: {deadline: 50ms}}\n"
        "arrivals: {x: {poisson: 40}}\nduration: 2s\n"
    )
    return path


def _simulate(scenario: Path, report: Path) -> Result:
    return CliRunner().invoke(app, [str(scenario), "--report", str(report)])


def test_simulate_writes_a_report_with_the_optimum_and_the_scenario(
    scenario: Path, tmp_path: Path
) -> None:
    result = _simulate(scenario, tmp_path / "new" / "report.html")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "new" / "report.html").read_text("utf-8")
    assert "# as it was given &lt;&amp;&gt;" in page
    found = charts(page)
    assert "<i>the bound</i>" in found["processors"]["layout"]["yaxis"]["ticktext"]
    assert len(found) == 5


def test_a_missing_chart_library_is_found_before_the_run(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    result = _simulate(scenario, tmp_path / "report.html")
    assert isinstance(result.exception, ConfigurationError)
    assert "submitted" not in result.output
    assert not (tmp_path / "report.html").exists()


def test_compare_writes_a_report_with_the_labels_of_its_table(
    scenario: Path, tmp_path: Path
) -> None:
    results = []
    for policy in ("fcfs", "sjf"):
        results.append(str(tmp_path / f"{policy}.json"))
        done = CliRunner().invoke(app, [str(scenario), "--policy", policy, "--json", results[-1]])
        assert done.exit_code == 0, done.output
    comparing = typer.Typer()
    comparing.command()(compare)
    result = CliRunner().invoke(comparing, [*results, "--report", str(tmp_path / "both.html")])
    assert result.exit_code == 0, result.output
    found = charts((tmp_path / "both.html").read_text("utf-8"))
    assert found["throughput"]["layout"]["yaxis"]["ticktext"] == ["fcfs", "sjf"]
