"""Tables: how the benchmarks print, on a terminal or not."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["WIDTH", "new_console", "new_table"]

WIDTH = 130
"""Columns of every table, also where the output is not a terminal."""


def new_console(*, stderr: bool = False) -> Console:
    """Return a console of the width of the tables; figures in its lines have no colours."""
    return Console(width=WIDTH, highlight=False, stderr=stderr)


def new_table(texts: Iterable[str], figures: Iterable[str], *, wraps: bool = False) -> Table:
    """Return a table without rows.

    Args:
        texts: Headers of the columns to the left.
        figures: Headers of the columns to the right of these, which are set flush right.
        wraps: Whether the columns of figures may take several lines, because there are many.
    """
    table = Table(box=box.SIMPLE_HEAD, highlight=False)
    for header in texts:
        table.add_column(header, no_wrap=True)
    for header in figures:
        table.add_column(header, justify="right", no_wrap=not wraps)
    return table
