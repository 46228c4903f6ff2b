"""A run whose processor fails says so: in its counts, its warnings, its table and its report."""

from __future__ import annotations

import html
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from coinfer.backends.null import Faults, NullBackend
from coinfer.machine.profile import Profile
from coinfer.metrics.explanation import Explainer
from coinfer.metrics.summary import Summary, summarise
from coinfer.metrics.table import render
from coinfer.report import write_report
from coinfer.runtime.play import Played, play
from coinfer.workload.scenario_file import parse_scenario
from runtime.engines import FEED, MODEL, cpus, ready

TEXT = """
models: {front: x.onnx}
arrivals: {offline: {counts: {front: 40}}}
"""
FAILURES = 4
PROCESSORS = cpus("p0", "p1")


def played(**options: object) -> Played:
    """Forty requests, of which four fail on `p1` and are then served by `p0`."""
    faults = Faults()
    faults.fail(model="front", processor="p1", times=FAILURES)
    profile = Profile.from_seconds({"front": {"p0": 0.0005, "p1": 0.0005}})
    scenario = parse_scenario(TEXT)
    prepared = ready(scenario, MODEL, FEED, PROCESSORS, profile)
    backends = {"null": NullBackend(0.002, faults=faults)}
    return play(prepared, backends=backends, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run() -> Played:
    return played(keep_records=True)


@pytest.fixture(scope="module")
def summary(run: Played) -> Summary:
    return summarise(
        run.run_counts,
        scenario="told",
        mode="run",
        policy="fcfs",
        seed=0,
        processors=PROCESSORS,
        warnings=run.warnings,
    )


def retries(run: Played) -> int:
    return run.run_counts.models["front"].retried


def test_retries_are_counted_and_all_requests_are_completed(run: Played) -> None:
    counts = run.run_counts.models["front"]
    assert (counts.submitted, counts.completed) == (40, 40)
    assert 1 <= retries(run) <= FAILURES  # three in a row set the processor aside
    assert run.run_counts.processors["p1"].failed == retries(run)


def test_they_are_one_warning_with_a_count(run: Played) -> None:
    [warning] = [each for each in run.warnings if "tried again" in each and "front" in each]
    times = "once" if retries(run) == 1 else f"{retries(run)} times"
    assert warning.startswith(f"front: failed on processor 'p1' and was tried again {times}; ")
    assert warning.endswith("fails because Faults.fail says so")


def test_the_table_shows_them(run: Played, summary: Summary) -> None:
    assert summary.models["front"].retried == retries(run)
    assert summary.to_json()["models"]["front"]["retried"] == retries(run)
    console = Console(width=200, file=StringIO())
    console.print(render(summary))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"front: {retries(run)} retried" in text
    assert "warning: front: failed on processor 'p1'" in text


def test_the_report_shows_them(run: Played, summary: Summary, tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    write_report(
        path,
        summary,
        requests=run.recorder.requests(),
        executions=run.recorder.executions(),
        window=run.recorder.window,
        origin_s=run.origin_s,
    )
    page = html.unescape(path.read_text())
    assert ">retried</th>" in page
    assert "front: failed on processor 'p1' and was tried again" in page


def test_an_explanation_accounts_for_all_of_the_time() -> None:
    explainer = Explainer()
    played(explainer=explainer)
    way = explainer.found
    assert way is not None
    moments = way.moments()
    assert moments[0].what == "due"
    assert moments[-1].what == "answered"
    assert sum(b.at_s - a.at_s for a, b in pairwise(moments)) == (pytest.approx(way.latency_s))
    whole = ["due", "seen by the core", "decided", "handed over", "started", "ended", "answered"]
    if len(way.choices) == 1:
        assert [each.what for each in moments] == whole
    assert {each.what for each in moments} >= set(whole)
