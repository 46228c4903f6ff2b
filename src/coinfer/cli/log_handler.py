"""Log handler: prints the warnings that coinfer logs to stderr, a line each."""

from __future__ import annotations

import logging

from coinfer.cli.console import err

__all__ = ["LogHandler"]

_SHOWN_ELSEWHERE = "coinfer.runtime"
"""What an engine warns of is among the warnings of its run."""


class LogHandler(logging.Handler):
    """Prints to what is standard error at the moment."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.addFilter(lambda record: not record.name.startswith(_SHOWN_ELSEWHERE))

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record's message."""
        err().print(record.getMessage())
