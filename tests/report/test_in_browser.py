"""Reports in a real browser: that charts are drawn cannot be told from the page's text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coinfer.report import write_comparison_report
from report.browser import Browser, browser
from report.samples import SHARES, Run, emptied, many, renamed, simulated, with_memory

pytestmark = pytest.mark.xdist_group("browser")  # so that one is started

DRAWN = {
    "latency": ".scatterlayer .trace path.js-line",
    "gantt": ".barlayer .point path",
    "timeline": ".heatmaplayer image, .scatterlayer .trace path.js-fill, .barlayer .point path",
    "processors": ".barlayer .point path",
    "outcomes": ".barlayer .point path",
    "throughput": ".barlayer .point path",
    "hits": ".scatterlayer .points path",
    "latencies": ".scatterlayer .points path",
}
"""By chart, what it is drawn with in SVG."""

RUN_CHARTS = ("latency", "gantt", "timeline", "processors", "outcomes")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def run() -> Run:
    return simulated(shares=SHARES)


def _open(chromium: Browser, run: Run, path: Path) -> None:
    run.write(path)
    chromium.open(path)


def _shapes(chromium: Browser, chart: str) -> int:
    """How many shapes a chart consists of that take room on the page."""
    found = f"[...document.querySelectorAll('#{chart} :is({DRAWN[chart]})')]"
    sized = "(shape) => { const b = shape.getBBox(); return b.width + b.height > 0; }"
    shapes: int = chromium.ask(f"{found}.filter({sized}).length")
    return shapes


def test_all_charts_of_a_run_are_drawn_in_the_window_without_complaint_or_request(
    chromium: Browser, run: Run, tmp_path: Path
) -> None:
    _open(chromium, run, tmp_path / "run.html")
    assert chromium.ask("document.documentElement.dataset.charts") == str(len(RUN_CHARTS))
    shapes = {chart: _shapes(chromium, chart) for chart in RUN_CHARTS}
    assert shapes["latency"] == 5  # three curves and two deadlines
    assert shapes["gantt"] == len(run.executions)
    assert min(shapes.values()) > 0
    assert chromium.complaints() == []
    assert chromium.ask("performance.getEntriesByType('resource').length") == 0
    assert chromium.ask("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_button_shows_another_part_of_the_run(
    chromium: Browser, run: Run, tmp_path: Path
) -> None:
    _open(chromium, run, tmp_path / "run.html")
    seen = set()
    for number in range(3):
        chromium.ask(f"document.querySelectorAll('.views button')[{number}].click()")
        seen.add(tuple(chromium.ask("document.getElementById('gantt').layout.xaxis.range")))
    assert len(seen) == 3
    assert "the longest queue" in chromium.ask("document.querySelector('.views .note').textContent")
    assert chromium.complaints() == []


def test_a_hidden_model_leaves_all_charts_and_comes_back(
    chromium: Browser, run: Run, tmp_path: Path
) -> None:
    _open(chromium, run, tmp_path / "run.html")
    before = _shapes(chromium, "gantt")
    others = sum(record.model != "front" for record in run.executions)
    chromium.ask("document.querySelector('.legend button[data-model=front]').click()")
    assert _shapes(chromium, "gantt") == others
    assert _shapes(chromium, "latency") == 3
    chromium.ask("document.querySelector('.legend button[data-model=front]').click()")
    assert _shapes(chromium, "gantt") == before
    assert chromium.complaints() == []


def test_hostile_names_are_only_text(chromium: Browser, run: Run, tmp_path: Path) -> None:
    name = '<img src=x onerror="document.title=1"><b>b</b>'
    _open(chromium, renamed(run, {"front": name, "npu": name}), tmp_path / "hostile.html")
    assert chromium.ask("document.images.length") == 0
    labels = "[...document.querySelectorAll('#gantt .ytick text')].map((t) => t.textContent)"
    assert name in chromium.ask(labels)
    assert name in chromium.ask("document.querySelector('.legend').textContent")
    assert chromium.ask("document.title") == "bursty & busy"
    assert chromium.complaints() == []


def test_an_empty_run_and_one_model_without_deadline_are_fine(
    chromium: Browser, run: Run, tmp_path: Path
) -> None:
    _open(chromium, emptied(run), tmp_path / "empty.html")
    assert chromium.ask("document.documentElement.dataset.charts") == "0"
    assert chromium.complaints() == []
    text = 'models: {rear: "zoo:lenet"}\narrivals: {rear: {closed: 1}}\nduration: 1s\n'
    _open(chromium, simulated(text), tmp_path / "one.html")
    assert all(_shapes(chromium, chart) for chart in RUN_CHARTS)
    assert chromium.complaints() == []


def test_memory_and_what_was_loaded_are_drawn(chromium: Browser, tmp_path: Path) -> None:
    _open(chromium, with_memory(), tmp_path / "memory.html")
    assert all(_shapes(chromium, chart) for chart in RUN_CHARTS)
    rows = "[...document.querySelectorAll('#gantt .ytick text')].map((t) => t.textContent)"
    assert chromium.ask(rows) == ["cpu0", "loading"]
    evicted = "document.querySelectorAll('#gantt .scatterlayer .points path').length"
    assert chromium.ask(evicted) == 1
    lines = "document.querySelectorAll('#timeline .scatterlayer .trace path.js-line').length"
    assert chromium.ask(lines) >= 4
    assert chromium.complaints() == []


def test_a_hundred_thousand_executions_are_drawn(chromium: Browser, tmp_path: Path) -> None:
    _open(chromium, many(100_000), tmp_path / "many.html")
    assert all(_shapes(chromium, chart) for chart in RUN_CHARTS)
    assert chromium.ask("document.querySelectorAll('*').length") < 20_000
    assert chromium.complaints() == []


def test_all_charts_of_a_comparison_are_drawn(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "compare.html"
    write_comparison_report(path, [simulated(policy=name).summary for name in ("fcfs", "edf")])
    chromium.open(path)
    for chart in ("throughput", "hits", "latencies", "outcomes"):
        assert _shapes(chromium, chart) > 0, chart
    assert chromium.complaints() == []
    assert chromium.ask("performance.getEntriesByType('resource').length") == 0
