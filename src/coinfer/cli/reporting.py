"""`--report FILE`: write a run, or a comparison of several, as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coinfer.cli.console import out

if TYPE_CHECKING:
    from coinfer.bound import Bound
    from coinfer.metrics.recorder import Recorder
    from coinfer.metrics.summary import Summary

__all__ = ["check_report", "report_comparison", "report_run"]


def check_report(path: Path | None) -> None:
    """Find out before a run that its report cannot be written.

    Raises:
        ConfigurationError: the chart library is not installed.
    """
    if path is None:
        return
    from coinfer.report import chart_library

    chart_library()


def report_run(
    path: Path,
    summary: Summary,
    recorder: Recorder,
    *,
    scenario_file: Path,
    optimum: Bound | None,
    origin_s: float = 0.0,
) -> None:
    """Write the report of a run and say where it is.

    Args:
        path: Where to.
        summary: The figures of the run.
        recorder: Its records.
        scenario_file: The scenario, to be shown as it is.
        optimum: What the bound rests on.
        origin_s: The moment, in the driver's time, at which the load began.

    Raises:
        ConfigurationError: it cannot be written.
    """
    from coinfer.cli.output import writing
    from coinfer.report import write_report
    from coinfer.scenarios.library import scenario_path

    with writing(path):
        write_report(
            path,
            summary,
            requests=recorder.requests(),
            executions=recorder.executions(),
            window=recorder.window,
            origin_s=origin_s,
            shares=None if optimum is None else optimum.shares,
            scenario_text=scenario_path(scenario_file).read_text(encoding="utf-8"),
        )
    _say(path)


def report_comparison(path: Path, summaries: Sequence[Summary], labels: Sequence[str]) -> None:
    """Write the report of several runs side by side and say where it is.

    Raises:
        ConfigurationError: it cannot be written.
    """
    from coinfer.cli.output import writing
    from coinfer.report import write_comparison_report

    with writing(path):
        write_comparison_report(path, summaries, labels=labels)
    _say(path)


def _say(path: Path) -> None:
    out().print(f"report: {path} (open it in a browser)", soft_wrap=True)
