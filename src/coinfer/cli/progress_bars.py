"""Progress bars: of the profiler, and of a run or a simulation. Shown on a terminal only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from coinfer.cli.console import err

__all__ = ["profiler_bar", "time_bar"]


@contextmanager
def profiler_bar() -> Iterator[Callable[[int, int, str], None]]:
    """Show how many measurements are done; yields what the profiler calls."""
    columns = (MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with _bar("profiling", *columns) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(
            task, completed=done, total=total, description=what
        )


@contextmanager
def time_bar(what: str, end_s: float) -> Iterator[Callable[[float], None]]:
    """Show how far a load has come; yields what takes the seconds since its start."""
    with _bar(what) as bar:
        task = bar.add_task("", total=end_s if end_s < math.inf else None)
        yield lambda now_s: bar.update(task, completed=max(0.0, now_s))


def _bar(what: str, *columns: ProgressColumn) -> Progress:
    """Make a bar that is gone at the end."""
    console = err()
    shown = (TextColumn(what), BarColumn(), *columns, TimeElapsedColumn())
    return Progress(*shown, console=console, transient=True, disable=not console.is_terminal)
