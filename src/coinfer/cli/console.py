"""Where the command line prints: results to stdout, everything else to stderr."""

from __future__ import annotations

import os

from rich.console import Console

__all__ = ["PIPE_COLUMNS", "err", "out"]

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
