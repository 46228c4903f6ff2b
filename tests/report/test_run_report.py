from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from coinfer.core.request import Outcome
from coinfer.errors import ConfigurationError
from coinfer.metrics.records import ExecutionOutcome
from coinfer.metrics.xrbench import ModelScore, XRBenchScore
from coinfer.report.memory_panel import _thinned
from coinfer.report.words import digits, percent
from report.samples import (
    BURSTY,
    SHARES,
    Run,
    charts,
    emptied,
    many,
    renamed,
    simulated,
    with_memory,
)

HOSTILE = {
    "bursty & busy": "</title><script>alert(1)</script>",
    "front": '</script><img src=x onerror="alert(1)">',
    "rear": "<b>bold</b> & \"quoted\" 'twice'",
    "idle_time": "2020-01-01",
    "npu": "<i>npu</i>",
}


@pytest.fixture(scope="module")
def run() -> Run:
    return simulated(shares=SHARES)


@pytest.fixture(scope="module")
def page(run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    return run.write(tmp_path_factory.mktemp("report") / "run.html")


class _Elements(HTMLParser):
    """Collects the elements of a page and the addresses that they refer to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action")]
        assert not [k for k, _ in attrs if k.startswith("on")], "no element carries a script"


def _traces(page: str) -> Iterator[dict[str, Any]]:
    for chart in charts(page).values():
        for traces in chart["sets"]:
            yield from traces


def _chart(page: str, name: str) -> list[dict[str, Any]]:
    traces: list[dict[str, Any]] = charts(page)[name]["sets"][0]
    return traces


def test_the_page_shows_the_figures_of_the_summary(run: Run, page: str) -> None:
    assert f"{digits(run.summary.totals.throughput_per_s)}/s" in page
    assert f"{percent(run.summary.bound.fraction)} of the bound" in page
    for row in run.summary.models.values():
        assert f">{digits(row.latency_ms.p99)}</td>" in page
    assert "imagined" in page


def test_every_chart_is_there_and_is_a_figure_that_plotly_knows(page: str) -> None:
    found = charts(page)
    assert list(found) == ["latency", "gantt", "timeline", "processors", "outcomes"]
    for chart in found.values():
        for traces in chart["sets"]:
            go.Figure(data=traces, layout=chart["layout"])  # raises if a property is unknown


def test_every_axis_with_numbers_says_its_unit(page: str) -> None:
    for chart in charts(page).values():
        for name, axis in chart["layout"].items():
            if name.startswith(("xaxis", "yaxis")) and "ticktext" not in axis:
                assert axis["title"]["text"], (chart["id"], name)


def test_the_curve_at_the_deadline_is_the_hit_rate(run: Run, page: str) -> None:
    for model, limit_ms in (("front", 30.0), ("rear", 80.0)):
        curve = next(t for t in _chart(page, "latency") if t["meta"] == model)
        below = [y for x, y in zip(curve["x"], curve["y"], strict=True) if x <= limit_ms]
        hit_rate = run.summary.models[model].deadline_hit_rate
        assert hit_rate is not None
        assert below[-1] == pytest.approx(100 * hit_rate, abs=1e-3)


def test_the_bars_of_a_processor_add_up_to_its_busy_share(run: Run, page: str) -> None:
    busy = [0.0] * 4  # measured and bound, for each of two processors
    for trace in _chart(page, "processors"):
        for row, share in zip(trace["y"], trace["x"], strict=True):
            busy[row] += share / 100
    measured = [run.summary.processors[name].busy_fraction for name in ("cpu0", "npu")]
    assert busy[0::2] == pytest.approx(measured, abs=1e-4)
    assert busy[1::2] == pytest.approx([1.0, 1.0], abs=1e-4)


def test_the_timeline_shows_every_miss_and_every_completion_once(run: Run, page: str) -> None:
    misses = {"late": 0, "dropped": 0}
    completions = 0.0
    for trace in _chart(page, "timeline"):
        if trace.get("name") in misses:
            misses[trace["name"]] += int(sum(trace["y"]))
        if trace.get("stackgroup") == "rate":
            # The last value is repeated to draw the end of the last step.
            completions += sum(trace["y"][:-1]) * (trace["x"][1] - trace["x"][0])
    assert misses == {
        "late": sum(r.late for r in run.requests),
        "dropped": sum(r.outcome is Outcome.DROPPED for r in run.requests),
    }
    assert min(misses.values()) > 0
    completed = sum(r.outcome is Outcome.COMPLETED for r in run.requests)
    assert completions == pytest.approx(completed, abs=0.01)


def test_every_execution_is_one_bar_of_its_length_on_its_processor(run: Run, page: str) -> None:
    names = charts(page)["gantt"]["layout"]["yaxis"]["ticktext"]
    drawn = {
        (details[1], names[y], base, x)
        for trace in _chart(page, "gantt")
        for details, y, base, x in zip(
            trace["customdata"], trace["y"], trace["base"], trace["x"], strict=True
        )
    }
    assert drawn == {
        (str(r.id), r.processor, round(r.started_s, 6), round(r.finished_s - r.started_s, 6))
        for r in run.executions
    }


def test_a_model_has_one_colour_in_all_charts(page: str) -> None:
    colours: dict[str, set[str]] = {}
    for trace in _traces(page):
        if "meta" not in trace:
            continue
        if trace["type"] == "bar":
            colour = trace["marker"]["color"]
            found = set(colour) if isinstance(colour, list) else {colour}
        else:
            found = {trace["line"]["color"]}
        colours.setdefault(trace["meta"], set()).update(found)
    assert {model: len(found) for model, found in colours.items()} == {
        "front": 1,
        "rear": 1,
        "idle_time": 1,
    }
    assert len(set.union(*colours.values())) == 3


def test_names_cannot_become_elements(run: Run, tmp_path: Path) -> None:
    page = renamed(run, HOSTILE).write(tmp_path / "hostile.html")
    own = page.replace(get_plotlyjs(), "")
    elements = _Elements(own)
    assert elements.names.count("script") == 3
    assert "img" not in elements.names
    assert "<b>bold" not in own
    assert "<img" not in own
    assert own.count("</script>") == 3
    assert "&lt;script&gt;alert(&quot;text&quot;)" in own  # the scenario's text


def test_a_page_refers_to_nothing_outside_and_forbids_it(page: str) -> None:
    own = page.replace(get_plotlyjs(), "")
    assert _Elements(own).addresses == []
    assert "default-src 'none'" in own
    assert "connect-src" not in own  # so it is what default-src says
    assert "http://" not in own
    assert "https://" not in own
    assert "showSendToCloud: false" in own


def test_a_hundred_thousand_executions_make_a_page_of_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "many.html"
    page = many(100_000).write(path)
    assert path.stat().st_size < 10e6
    gantt = charts(page)["gantt"]
    for traces in gantt["sets"]:
        assert 0 < sum(len(trace["x"]) for trace in traces) <= 1500
    for view in gantt["views"]:
        assert "of 100,000 are drawn" in view["note"]
    for trace in _traces(page):
        assert len(trace["x"]) <= 1500


def test_a_run_in_which_nothing_happened_says_so(run: Run, tmp_path: Path) -> None:
    page = emptied(run).write(tmp_path / "empty.html")
    assert charts(page) == {}
    for text in ("No request was completed.", "Nothing was executed.", "no request had a deadline"):
        assert text in page


def test_requests_that_never_ran_are_shown_as_dropped(run: Run, tmp_path: Path) -> None:
    dropped = [
        replace(r, outcome=Outcome.DROPPED, started_s=None, executions=(), processors=())
        for r in run.requests
    ]
    page = replace(run, requests=dropped, executions=[]).write(tmp_path / "dropped.html")
    assert list(charts(page)) == ["timeline", "processors", "outcomes"]


def test_without_misses_deadlines_and_bound_the_page_says_so(tmp_path: Path) -> None:
    text = BURSTY.replace(", deadline: 30ms, on_late: drop", "").replace(", deadline: 80ms", "")
    quiet = simulated(text)
    summary = replace(quiet.summary, bound=type(quiet.summary.bound)())
    page = replace(quiet, summary=summary).write(tmp_path / "quiet.html")
    assert "no request had a deadline" in page
    assert "no bound is known" in page
    assert "none: every request was answered in time" in page
    assert not [t for t in _chart(page, "latency") if "dash" in t["line"]]


def test_an_execution_that_failed_is_black(run: Run, tmp_path: Path) -> None:
    failed = replace(run.executions[0], outcome=ExecutionOutcome.FAILED, reason="<boom>")
    page = replace(run, executions=[failed]).write(tmp_path / "failed.html")
    (bar,) = _chart(page, "gantt")
    assert bar["marker"]["color"] == ["#1a1a1a"]
    assert bar["customdata"][0][2] == "failed: &lt;boom&gt;"


def test_a_bar_says_how_many_requests_shared_its_run(run: Run, tmp_path: Path) -> None:
    alone, shared = run.executions[0], replace(run.executions[1], request_ids=(1, 2, 3))
    page = replace(run, executions=[alone, shared]).write(tmp_path / "shared.html")
    texts = [text for bar in _chart(page, "gantt") for text in bar.get("text", [])]
    assert "3" in texts
    page = replace(run, executions=[alone]).write(tmp_path / "alone.html")
    assert all("text" not in bar for bar in _chart(page, "gantt"))


def test_times_count_from_the_begin_of_the_load(run: Run, tmp_path: Path) -> None:
    from coinfer.report.facts import gather

    facts = gather(run.summary, run.requests, run.executions, run.window, origin_s=0.25)
    assert facts.begin_s == pytest.approx(0.25)
    assert facts.due_s[0] == pytest.approx(run.requests[0].due_s - 0.25)
    assert facts.run_start_s.min() == pytest.approx(min(r.started_s for r in run.executions) - 0.25)


def test_a_score_is_shown_if_there_is_one(run: Run, tmp_path: Path) -> None:
    part = ModelScore(frames=10, qoe=0.9, realtime=0.8, score=0.72)
    score = XRBenchScore(score=72.0, models={"front": part})
    page = replace(run, summary=replace(run.summary, score=score)).write(tmp_path / "score.html")
    assert "72.00" in page
    assert ">80.0%</td>" in page


def test_without_plotly_the_error_says_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'coinfer\[report\]'"):
        run.write(tmp_path / "never.html")
    assert not list(tmp_path.iterdir())


def test_memory_over_time_and_what_was_loaded_are_drawn_where_there_is_a_budget(
    tmp_path: Path,
) -> None:
    page = with_memory().write(tmp_path / "memory.html")
    drawn = charts(page)
    titles = [each["text"] for each in drawn["timeline"]["layout"]["annotations"]]
    assert any("Memory host" in title and "budget" in title for title in titles)
    lines = {t["name"]: t for t in drawn["timeline"]["sets"][0] if "name" in t}
    assert lines.keys() >= {"believed to be loaded", "budget", "the whole process", "its own"}
    assert set(lines["budget"]["y"]) == {100.0}
    assert drawn["gantt"]["layout"]["yaxis"]["ticktext"][-1] == "loading"
    kinds = Counter(t["type"] for t in drawn["gantt"]["sets"][0] if _is_move(t))
    assert kinds == {"bar": 1, "scatter": 1}, "the load of b, the eviction of a"
    assert "× marks what was evicted" in page
    assert "1 loads of 100 MiB" in page


def test_without_a_budget_there_is_nothing_of_memory(tmp_path: Path) -> None:
    page = simulated().write(tmp_path / "run.html")
    assert "Memory host" not in page
    assert "loading" not in charts(page)["gantt"]["layout"]["yaxis"]["ticktext"]


def test_many_moments_of_memory_are_thinned_to_their_extremes() -> None:
    points = [(float(n), float(n % 7)) for n in range(100_000)]
    found = _thinned(points)
    assert len(found) <= 4002
    assert (found[0], found[-1]) == (points[0], points[-1])
    assert {value for _, value in found} >= {0.0, 6.0}


def _is_move(trace: dict[str, Any]) -> bool:
    return bool(trace.get("width") == 0.5 or trace["type"] == "scatter")
