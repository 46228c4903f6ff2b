"""Serve log: where `coinfer serve` tells what it does, without ever waiting for who reads it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

from coinfer.errors import BackendError

if TYPE_CHECKING:
    from coinfer.server.telemetry.recorder import Listener
    from coinfer.server.telemetry.writer import LogWriter

__all__ = ["LogFormat", "request_listeners", "serve_log"]


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


@contextmanager
def request_listeners(
    log: LogWriter, *, has_access_log: bool, otlp: str | None
) -> Iterator[list[Listener]]:
    """Tell of each request until the end: in traces, if asked for, and then in the log.

    Args:
        log: Where lines are written.
        has_access_log: Whether each request has one.
        otlp: Where traces are sent; None: where the variables of OpenTelemetry say, if they do.

    Raises:
        ConfigurationError: that is no address.
        BackendError: OpenTelemetry is not installed, and the command line asks for traces.
    """
    from coinfer.server.telemetry.otlp import exporting_spans, is_asked_for

    spans = None
    if otlp is not None:
        spans = exporting_spans(otlp)
    elif is_asked_for():
        try:
            spans = exporting_spans(None)
        except BackendError as error:  # the variables may be meant for other programs
            logging.getLogger(__name__).warning("no traces are made: %s", error)
    listeners: list[Listener] = [] if spans is None else [spans.tell]
    if has_access_log:
        listeners.append(log.tell)
    try:
        yield listeners
    finally:
        if spans is not None:
            spans.close()
