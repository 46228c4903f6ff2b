"""LogWriter: writes lines from a thread of its own, so that who logs never waits for the reader."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import IO

from coinfer.server.telemetry.lines import FORMATS, message_of, request_line
from coinfer.server.telemetry.record import RequestRecord

__all__ = ["LogWriter", "into_descriptor", "into_stream"]

_MOST_WAITING = 10_000
_GATHER_S = 0.02
"""After the first line, others of the same moment may join it: one system call for all."""

_AT_ONCE = 200
"""Lines of one system call."""

Write = Callable[[str], None]


class LogWriter(logging.Handler):
    """Writes requests and messages, a line each.

    At most 10,000 lines wait for a reader that is slow; further ones are dropped, and a line says
    how many.

    Args:
        write: Takes whole lines; it may wait.
        form: `text` or `json`.
    """

    def __init__(self, write: Write, form: str = "text") -> None:
        super().__init__(logging.WARNING)
        self.form = form
        self._write = write
        self._lines: deque[str | RequestRecord] = deque()
        self._n_dropped = 0
        self._is_idle = True
        self._is_ending = False
        self._woken = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="coinfer-log", daemon=True)

    def start(self) -> None:
        """Write from now on."""
        self._thread.start()

    def tell(self, record: RequestRecord) -> None:
        """Write a line of a request; returns at once."""
        self._put(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message; returns at once."""
        self._put(FORMATS[self.form](message_of(record)))

    def say(self, text: str) -> None:
        """Write a message that is no warning; returns at once."""
        record = logging.LogRecord("coinfer.serve", logging.INFO, "", 0, text, None, None)
        self.emit(record)

    def end(self, timeout_s: float = 1.0) -> None:
        """Write what is left, but do not wait longer than this for who reads it."""
        self._is_ending = True
        self._woken.set()
        self._ended.wait(timeout_s)

    def _put(self, line: str | RequestRecord) -> None:
        if len(self._lines) >= _MOST_WAITING:
            self._n_dropped += 1
            return
        self._lines.append(line)
        if self._is_idle:
            self._is_idle = False
            self._woken.set()

    def _run(self) -> None:
        lines = self._lines
        try:
            while lines or not self._is_ending:
                if not lines:
                    self._woken.clear()
                    self._is_idle = True
                    if not lines and not self._is_ending:
                        self._woken.wait()
                    if not self._is_ending:
                        time.sleep(_GATHER_S)
                    continue
                self._write_some()
        finally:
            self._ended.set()

    def _write_some(self) -> None:
        lines = self._lines
        some = [lines.popleft() for _ in range(min(len(lines), _AT_ONCE))]
        texts = [each if isinstance(each, str) else request_line(each, self.form) for each in some]
        dropped, self._n_dropped = self._n_dropped, 0
        if dropped:
            text = f"{dropped} lines were dropped, because they were not read in time"
            record = logging.LogRecord("coinfer.log", logging.WARNING, "", 0, text, None, None)
            texts.append(FORMATS[self.form](message_of(record)))
        self._write("".join([f"{text}\n" for text in texts]))


def into_descriptor(descriptor: int) -> Write:
    """Return what writes to a file descriptor, and to nowhere once nobody reads it.

    No lock of a stream is held meanwhile: the interpreter could not end while one is.
    """

    def write(text: str) -> None:
        data = memoryview(text.encode("ascii", "backslashreplace"))
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except OSError:
            return

    return write


def into_stream(stream: IO[str]) -> Write:
    """Return what writes to a stream; to its descriptor if it has one."""
    try:
        return into_descriptor(stream.fileno())
    except (OSError, ValueError, AttributeError):  # a stream of a test has none

        def write(text: str) -> None:
            stream.write(text)
            stream.flush()

        return write
