"""The result files of a run or simulation: checked before it, written and named after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coinfer.cli.console import out

if TYPE_CHECKING:
    from coinfer.bound import Bound
    from coinfer.machine.processor import Processor
    from coinfer.metrics.recorder import Recorder
    from coinfer.metrics.summary import Summary

__all__ = ["ResultFiles"]


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
        from coinfer.cli.output import check_writable
        from coinfer.cli.reporting import check_report

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
        from coinfer.cli.output import write_json
        from coinfer.cli.reporting import report_run

        console = out()
        if self.json is not None:
            write_json(self.json, summary.to_json())
            console.print(f"JSON: {self.json}", soft_wrap=True)
        if self.trace is not None:
            _write_trace(self.trace, summary, recorder, processors, origin_s)
            console.print(
                f"trace: {self.trace} (open it at https://ui.perfetto.dev)", soft_wrap=True
            )
        if self.record is not None:
            console.print(f"log: {self.record} (check it with `coinfer replay`)", soft_wrap=True)
        if self.report is not None:
            report_run(
                self.report,
                summary,
                recorder,
                scenario_file=scenario_file,
                optimum=optimum,
                origin_s=origin_s,
            )


def _write_trace(
    path: Path,
    summary: Summary,
    recorder: Recorder,
    processors: Sequence[Processor],
    origin_s: float,
) -> None:
    from coinfer.cli.output import writing
    from coinfer.metrics.trace import write_trace

    metadata = {"scenario": summary.scenario, "policy": summary.policy, "seed": summary.seed}
    with writing(path):
        write_trace(
            path,
            requests=recorder.requests(),
            executions=recorder.executions(),
            processors=processors,
            metadata=metadata,
            origin_s=origin_s,
        )
