"""Where the command line prints: results to stdout, everything else to stderr."""

from __future__ import annotations

import os
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.padding import PaddingDimensions
from rich.table import Table

__all__ = ["PIPE_COLUMNS", "err", "new_table", "out", "print_lines"]

PIPE_COLUMNS = 120
"""A pipe or a file has no width; tables must not be squeezed for it."""


def out() -> Console:
    """Return the console for results. Names come from files: they are text, not markup."""
    console = Console(highlight=False, markup=False, soft_wrap=False)
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(highlight=False, markup=False, width=PIPE_COLUMNS)


def err() -> Console:
    """Return the console for progress and messages; lines are not broken."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def print_lines(*lines: str) -> None:
    """Print results line by line; long lines are not broken."""
    for line in lines:
        out().print(line, soft_wrap=True)


def new_table(
    *names: str, figures: Iterable[str] = (), padding: PaddingDimensions = (0, 1)
) -> Table:
    """Make a table with columns of names, folded where room is scarce, then columns of figures."""
    table = Table(box=box.SIMPLE_HEAD, padding=padding, pad_edge=False)
    for header in names:
        table.add_column(header, overflow="fold")
    for header in figures:
        table.add_column(header, justify="right", no_wrap=True)
    return table
