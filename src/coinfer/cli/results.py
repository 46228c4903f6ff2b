"""The result files of a run or simulation: checked before it, written and named after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import typer

from coinfer.cli.console import err
from coinfer.cli.options import JsonOption, ReportOption
from coinfer.cli.output import check_writable, say, write_result, writing
from coinfer.hardware.environment import describe
from coinfer.machine.processor import Processor
from coinfer.metrics.summary import Summary, summarise
from coinfer.scenarios.library import scenario_path

if TYPE_CHECKING:
    from coinfer.experiments.offered import Optimum
    from coinfer.metrics.counts import RunCounts
    from coinfer.metrics.memory_track import ProcessMemory
    from coinfer.metrics.recorder import Recorder
    from coinfer.replay import EventLog
    from coinfer.runtime.play import Played
    from coinfer.runtime.prepared import Prepared
    from coinfer.sim import Simulated

__all__ = ["Result", "ResultFiles", "check_report", "report_comparison"]


class Result(NamedTuple):
    """What came of a run or a simulation.

    Attributes:
        summary: The figures.
        recorder: The records, where they are needed.
        processors: Those of the machine.
        optimum: The bound, and how to reach it; None if the mix of requests is not known.
        origin_s: The moment, in the driver's time, at which the load began.
    """

    summary: Summary
    recorder: Recorder
    processors: Sequence[Processor]
    optimum: Optimum | None
    origin_s: float

    @classmethod
    def of(
        cls,
        ready: Prepared,
        done: Played | Simulated,
        *,
        mode: str,
        warnings: Iterable[str],
        environment: Mapping[str, Any] | None = None,
        origin_s: float = 0.0,
        held_before: ProcessMemory | None = None,
    ) -> Self:
        """Make the figures of a run or a simulation, and the bound beside them.

        The summary states `environment` beside this machine and the versions of its libraries.
        `held_before` is what the process held before anything was loaded.
        """
        from coinfer.experiments.least_loading import least_loading
        from coinfer.experiments.offered import offered_optimum

        plan, scenario = ready.plan, ready.as_run
        optimum = offered_optimum(
            plan.measured,
            plan.processors,
            scenario,
            done.run_counts,
            plan.works,
            plan.together,
            plan.cheaper,
            plan.fused_models,
        )
        least_load_s = least_loading(plan, scenario, _served(done.run_counts))
        summary = summarise(
            done.run_counts,
            scenario=scenario.name,
            mode=mode,
            policy=plan.policy.name,
            seed=scenario.seed,
            processors=plan.processors,
            models=scenario.models,
            environment={**describe(), **(environment or {})},
            bound_per_s=None if optimum is None else optimum.within(least_load_s),
            mix_of="offered" if optimum is None else optimum.mix_of,
            output_errors=plan.output_errors,
            variant_errors=plan.variant_errors,
            fused=plan.fused_models,
            memory=plan.memory,
            held_before=held_before,
            least_load_s=least_load_s,
            warnings=warnings,
        )
        return cls(summary, done.recorder, plan.processors, optimum, origin_s)


def _served(run_counts: RunCounts) -> dict[str, int]:
    return {model: counts.served for model, counts in run_counts.models.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFiles:
    """Where the user wants the results, as a group for `with_groups`; None: not wanted."""

    json: JsonOption = None
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Write a trace for ui.perfetto.dev; compressed if it ends in .gz.", metavar="FILE"
        ),
    ] = None
    record: Annotated[
        Path | None,
        typer.Option(
            help="Write a log for `coinfer replay`; compressed if it ends in .gz.", metavar="FILE"
        ),
    ] = None
    report: ReportOption = None

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

    @contextmanager
    def recorded(self, ready: Prepared) -> Iterator[EventLog | None]:
        """Open the log of the steps, for `coinfer replay`; None if the user wants none.

        Raises:
            ConfigurationError: the file cannot be written.
        """
        if self.record is None:
            yield None
            return
        from coinfer.replay import LogHeader, recording

        header = LogHeader(
            policy=ready.plan.policy.name,
            options=ready.plan.policy.options,
            processors=ready.plan.processors,
            limits=ready.scenario.limits,
            scenario=ready.scenario.name,
        )
        with recording(self.record, header) as log:
            yield log
        if log.problem:
            err().print(f"warning: {self.record} ends before the run does: {log.problem}")

    def write(self, result: Result, scenario_file: Path) -> None:
        """Write what is wanted and say where it is; the log was written during the run.

        Raises:
            ConfigurationError: a file cannot be written.
        """
        write_result(self.json, result.summary.to_json())
        if self.trace is not None:
            _write_trace(self.trace, result)
        if self.record is not None:
            say("log", self.record, "check it with `coinfer replay`")
        if self.report is not None:
            _report_run(self.report, result, scenario_file)


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


def _write_trace(path: Path, result: Result) -> None:
    from coinfer.metrics.trace import write_trace

    summary = result.summary
    with writing(path):
        write_trace(
            path,
            requests=result.recorder.requests(),
            executions=result.recorder.executions(),
            processors=result.processors,
            memory=result.recorder.memory(),
            metadata={"scenario": summary.scenario, "policy": summary.policy, "seed": summary.seed},
            origin_s=result.origin_s,
        )
    say("trace", path, "open it at https://ui.perfetto.dev")


def _report_run(path: Path, result: Result, scenario_file: Path) -> None:
    from coinfer.report import write_report

    with writing(path):
        write_report(
            path,
            result.summary,
            requests=result.recorder.requests(),
            executions=result.recorder.executions(),
            window=result.recorder.window,
            origin_s=result.origin_s,
            shares=None if result.optimum is None else result.optimum.bound.shares,
            scenario_text=scenario_path(scenario_file).read_text(encoding="utf-8"),
            memory=result.recorder.memory(),
        )
    say("report", path, "open it in a browser")
