"""Where the command line prints: results to stdout, everything else to stderr."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import PaddingDimensions
from rich.table import Table
from rich.text import Text

__all__ = ["PIPE_COLUMNS", "UNREAD", "err", "finish", "new_table", "out", "prepare", "print_lines"]

UNREAD = 141
"""Exit status if nobody read the output to its end: as if SIGPIPE (13) had ended the process."""

PIPE_COLUMNS = 120
"""A pipe or a file has no width; tables must not be squeezed for it."""


class _Console(Console):
    """Goes on without output when nobody reads it any more: files are still to be written."""

    def on_broken_pipe(self) -> None:
        _discard(self.stderr)

    def render_str(self, text: str, **options: Any) -> Text:
        """Show control characters as escapes: names come from files, and terminals obey them."""
        if not text.isprintable():
            text = "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
        return super().render_str(text, **options)


def prepare() -> None:
    """Let what a stream's encoding lacks be written as an escape: in ASCII an accent, say."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def finish() -> bool:
    """Write out what is still in the buffers; return whether all of the output could be read.

    Raises:
        OSError: it could not be written, e.g. because the disk is full.
    """
    global _unread
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard(stderr=False)
    except OSError:
        _discard(stderr=False)  # or the interpreter tries again when it ends, and says so
        raise
    unread, _unread = _unread, False
    return not unread


def out() -> Console:
    """Return the console for results. Names come from files: they are text, not markup."""
    console = _Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return _Console(highlight=False, markup=False, emoji=False, width=PIPE_COLUMNS)


def err() -> Console:
    """Return the console for progress and messages; lines are not broken."""
    return _Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


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


_unread = False
"""Whether nobody reads standard output any more."""


def _discard(stderr: bool) -> None:
    """Let a stream lead nowhere from now on."""
    global _unread
    _unread = _unread or not stderr
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, (sys.stderr if stderr else sys.stdout).fileno())
    os.close(nowhere)
