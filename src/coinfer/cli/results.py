"""The result files of a run or simulation: checked before it, written and named after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coinfer.cli.output import check_writable, say, write_json, writing

if TYPE_CHECKING:
    from coinfer.bound import Bound
    from coinfer.machine.processor import Processor
    from coinfer.metrics.recorder import Recorder
    from coinfer.metrics.summary import Summary

__all__ = ["ResultFiles", "check_report", "report_comparison"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFiles:
    """Where the user wants the results; None: not wanted."""

    json: Path | None
    trace: Path | None
    record: Path | None
    report: Path | None

    @property
    def need_records(self) -> bool:
        """Whether every request and execution must be kept."""
        return self.trace is not None or self.report is not None

    def check(self) -> None:
        """Find out before a run that one of them cannot be written.

        Raises:
            ConfigurationError: names the file, or what is not installed.
        """
        check_writable(self.json, self.trace, self.record, self.report)
        check_report(self.report)

    def write(
        self,
        summary: Summary,
        recorder: Recorder,
        processors: Sequence[Processor],
        *,
        scenario_file: Path,
        optimum: Bound | None,
        origin_s: float = 0.0,
    ) -> None:
        """Write what is wanted and say where it is; the log was written during the run.

        Args:
            summary: The figures.
            recorder: The records, where they are needed.
            processors: Those of the machine.
            scenario_file: The scenario, for the report.
            optimum: What the bound rests on, for the report.
            origin_s: The moment, in the driver's time, at which the load began.

        Raises:
            ConfigurationError: a file cannot be written.
        """
        if self.json is not None:
            write_json(self.json, summary.to_json())
            say("JSON", self.json)
        if self.trace is not None:
            _write_trace(self.trace, summary, recorder, processors, origin_s)
        if self.record is not None:
            say("log", self.record, "check it with `coinfer replay`")
        if self.report is not None:
            _report_run(self.report, summary, recorder, scenario_file, optimum, origin_s)


def check_report(path: Path | None) -> None:
    """Find out before a run that its report cannot be written.

    Raises:
        ConfigurationError: the chart library is not installed.
    """
    if path is not None:
        from coinfer.report import chart_library

        chart_library()


def report_comparison(path: Path, summaries: Sequence[Summary], labels: Sequence[str]) -> None:
    """Write the report of several runs side by side and say where it is.

    Raises:
        ConfigurationError: it cannot be written.
    """
    from coinfer.report import write_comparison_report

    with writing(path):
        write_comparison_report(path, summaries, labels=labels)
    say("report", path, "open it in a browser")


def _write_trace(
    path: Path,
    summary: Summary,
    recorder: Recorder,
    processors: Sequence[Processor],
    origin_s: float,
) -> None:
    from coinfer.metrics.trace import write_trace

    with writing(path):
        write_trace(
            path,
            requests=recorder.requests(),
            executions=recorder.executions(),
            processors=processors,
            metadata={"scenario": summary.scenario, "policy": summary.policy, "seed": summary.seed},
            origin_s=origin_s,
        )
    say("trace", path, "open it at https://ui.perfetto.dev")


def _report_run(
    path: Path,
    summary: Summary,
    recorder: Recorder,
    scenario_file: Path,
    optimum: Bound | None,
    origin_s: float,
) -> None:
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
    say("report", path, "open it in a browser")
