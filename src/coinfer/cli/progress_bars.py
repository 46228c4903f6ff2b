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

__all__ = ["profiler_bar", "telling", "time_bar"]


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
def telling(what: str) -> Iterator[Callable[[str], None]]:
    """Show what is done now, of work whose length is not known; yields what takes it as a text."""
    with _bar(what, TextColumn("{task.description}", markup=False)) as bar:
        task = bar.add_task("", total=None)
        yield lambda step: bar.update(task, description=step)


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
