from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go
import pytest

from coinfer.errors import ConfigurationError
from coinfer.metrics.summary import Summary
from coinfer.report import write_comparison_report
from coinfer.report.comparison import run_labels
from coinfer.report.words import digits
from report.samples import charts, emptied, renamed, simulated


@pytest.fixture(scope="module")
def runs() -> list[Summary]:
    return [simulated(policy=name).summary for name in ("earliest_finish", "fcfs", "edf")]


def test_each_run_has_a_bar_with_its_throughput(runs: list[Summary], tmp_path: Path) -> None:
    path = tmp_path / "compare.html"
    write_comparison_report(path, runs)
    found = charts(path.read_text("utf-8"))
    assert list(found) == ["throughput", "hits", "latencies", "outcomes"]
    bars = [t for t in found["throughput"]["sets"][0] if t["type"] == "bar"]
    totals = [sum(bar["x"][row] for bar in bars) for row in range(3)]
    assert totals == pytest.approx([run.totals.throughput_per_s for run in runs])
    assert found["throughput"]["layout"]["yaxis"]["ticktext"] == ["earliest_finish", "fcfs", "edf"]


def test_all_charts_are_figures_that_plotly_knows(runs: list[Summary], tmp_path: Path) -> None:
    path = tmp_path / "compare.html"
    write_comparison_report(path, runs)
    for chart in charts(path.read_text("utf-8")).values():
        go.Figure(data=chart["sets"][0], layout=chart["layout"])


def test_the_best_of_each_figure_is_bold(runs: list[Summary], tmp_path: Path) -> None:
    path = tmp_path / "compare.html"
    write_comparison_report(path, runs)
    best = min(run.models["front"].latency_ms.p99 or 0.0 for run in runs)
    assert f"<b>{digits(best)}</b>" in path.read_text("utf-8")


def test_runs_that_differ_in_more_than_the_policy_get_a_warning(
    runs: list[Summary], tmp_path: Path
) -> None:
    path = tmp_path / "compare.html"
    other = replace(runs[1], seed=9, scenario="other", warnings=("careful",))
    write_comparison_report(path, [runs[0], other], labels=["one", "two"])
    page = path.read_text("utf-8")
    assert "the runs are of different scenarios" in page
    assert "the runs are of different seeds" in page
    assert "two: careful" in page


def test_one_run_and_runs_without_completions_are_fine(runs: list[Summary], tmp_path: Path) -> None:
    path = tmp_path / "compare.html"
    write_comparison_report(path, [runs[0]])
    assert "throughput" in charts(path.read_text("utf-8"))
    write_comparison_report(path, [emptied(simulated()).summary, runs[0]])
    assert "latencies" in charts(path.read_text("utf-8"))
    write_comparison_report(path, [emptied(simulated()).summary])
    assert list(charts(path.read_text("utf-8"))) == ["throughput"]


def test_names_and_labels_cannot_become_elements(runs: list[Summary], tmp_path: Path) -> None:
    path = tmp_path / "compare.html"
    hostile = renamed(simulated(), {"front": "<img src=x>", "npu": "<img src=y>"}).summary
    write_comparison_report(path, [hostile, runs[0]], labels=["<img src=z>", "b"])
    assert "<img" not in path.read_text("utf-8")


def test_labels_are_what_tells_runs_apart(runs: list[Summary]) -> None:
    assert run_labels(runs[:2]) == ["earliest_finish", "fcfs"]
    assert run_labels([runs[0], replace(runs[0], mode="run")]) == ["simulate", "run"]
    assert run_labels([runs[0], runs[0]]) == ["1: earliest_finish", "2: earliest_finish"]
    assert run_labels([runs[0], replace(runs[1], seed=3)]) == [
        "earliest_finish, seed 1",
        "fcfs, seed 3",
    ]


def test_nothing_to_compare_and_wrong_labels_are_errors(
    runs: list[Summary], tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="nothing to compare"):
        write_comparison_report(tmp_path / "x.html", [])
    with pytest.raises(ConfigurationError, match="as many different labels"):
        write_comparison_report(tmp_path / "x.html", runs[:2], labels=["same", "same"])
