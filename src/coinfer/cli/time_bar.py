"""Progress bar of a run or a simulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from coinfer.cli.console import err

__all__ = ["time_bar"]


@contextmanager
def time_bar(what: str, end_s: float) -> Iterator[Callable[[float], None]]:
    """Show a bar on a terminal; yields what takes the seconds since the start."""
    console = err()
    with Progress(
        TextColumn(what),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=end_s if end_s < math.inf else None)
        yield lambda now_s: bar.update(task, completed=max(0.0, now_s))
