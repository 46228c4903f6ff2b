"""Serve log: where `coinfer serve` writes what it has to say, without ever waiting for a reader."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coinfer.server.telemetry.writer import LogWriter

__all__ = ["LogFormat", "serve_log"]


class LogFormat(StrEnum):
    """How the lines of the log are written."""

    TEXT = "text"
    JSON = "json"


@contextmanager
def serve_log(form: LogFormat) -> Iterator[LogWriter]:
    """Write to standard error, until the end, what this program and its libraries log."""
    from coinfer.server.telemetry.writer import LogWriter, into_stream

    writer = LogWriter(into_stream(sys.stderr), form.value)
    ours, root = logging.getLogger("coinfer"), logging.getLogger()
    before = list(ours.handlers)
    for handler in before:  # that of the command line writes at once, and leaves out the engine's
        ours.removeHandler(handler)
    root.addHandler(writer)
    writer.start()
    try:
        yield writer
    finally:
        root.removeHandler(writer)
        for handler in before:
            ours.addHandler(handler)
        writer.end()
