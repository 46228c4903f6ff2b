"""`coinfer run`: run a scenario on this machine and print what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from coinfer.cli import options
from coinfer.cli.console import out, print_lines
from coinfer.cli.preparing import prepared
from coinfer.cli.progress_bars import time_bar
from coinfer.cli.results import Result, ResultFiles
from coinfer.metrics.table import render

if TYPE_CHECKING:
    from coinfer.metrics.explanation import Explainer
    from coinfer.runtime.play import Played
    from coinfer.runtime.prepared import Prepared

__all__ = ["run"]


@options.with_groups
def run(
    scenario: options.ScenarioArgument,
    *,
    plan: options.PlanOption = None,
    changes: options.Changes,
    files: ResultFiles,
    explain: options.ExplainOption = None,
    keep_awake: Annotated[
        bool,
        typer.Option(
            "--keep-awake", help="Let cores spin instead of going idle: steadier, for more power."
        ),
    ] = False,
) -> None:
    """Run a scenario on this machine and show what was reached, beside the bound.

    Ctrl-C ends the load early: what runs is finished and what there is is shown.
    """
    from coinfer.cli.explaining import explainer_of, policy_lines, print_explanation

    files.check()
    wanted = changes.applied_to(scenario)
    explainer = explainer_of(explain, wanted)
    ready = prepared(wanted, plan, changes=changes)
    played = _played(ready, files, explainer, keep_awake=keep_awake)
    result = Result.of(
        ready,
        played,
        mode="run",
        warnings=_warnings(ready, played),
        origin_s=played.origin_s,
        held_before=played.held_before,
    )
    out().print(render(result.summary))
    print_lines(*policy_lines(ready.plan, why=explainer is not None))
    print_explanation(explainer)
    files.write(result, scenario)
    if played.interrupted:
        raise typer.Exit(130)


def _played(
    ready: Prepared, files: ResultFiles, explainer: Explainer | None, *, keep_awake: bool
) -> Played:
    from coinfer.hardware.awake import awake
    from coinfer.hardware.cgroup import memory_limit_bytes
    from coinfer.runtime.play import play

    cores = sorted({core for processor in ready.plan.processors for core in processor.cores})
    end_s = ready.scenario.end_s
    with files.recorded(ready) as log, time_bar("running", end_s) as on_tick:
        return play(
            ready,
            keep_records=files.need_records,
            observer=log,
            explainer=explainer,
            on_tick=on_tick,
            spinning=awake(cores) if keep_awake else None,
            memory_limit=memory_limit_bytes,
        )


def _warnings(ready: Prepared, played: Played) -> Iterator[str]:
    if played.interrupted:
        yield f"interrupted: these are the first {played.run_counts.duration_s:.3g} s"
    yield from (*ready.warnings, *played.warnings)
