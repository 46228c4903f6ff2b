"""Recorder: follows each request from its first byte to its answer, and tells those who listen."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Callable, Sequence

from coinfer.runtime import clock
from coinfer.server.telemetry.record import RequestRecord
from coinfer.server.telemetry.times import RequestTimes

__all__ = ["Listener", "Recorder"]

_TRACE_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_NO_TRACE = "0" * 32

Listener = Callable[[RequestRecord], None]
"""Is told of a request that is answered, in the thread of the event loop: it must be quick."""


class Recorder:
    """Makes the record of each request.

    Args:
        listeners: Who is told, one after the other: the later ones see what the first ones add.

    Attributes:
        times: Where the engine's times of answered requests come from.
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.times = RequestTimes()
        self._listeners = tuple(listeners)
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def begin(
        self, transport: str, call: str, trace_parent: str = "", trace_state: str = ""
    ) -> RequestRecord:
        """Note that a request comes."""
        return RequestRecord(
            transport=transport,
            call=call,
            at_ns=time.time_ns(),
            began_s=clock.now(),
            trace_parent=trace_parent,
            trace_state=trace_state,
            id=f"{self._prefix}-{next(self._numbers)}",
        )

    def end(self, record: RequestRecord, at_s: float | None = None) -> None:
        """Note that a request is answered, or that nobody waits for that, and tell who listens.

        Args:
            record: What there is to tell.
            at_s: When that was, in the engine's time; None: now.
        """
        record.total_s = (clock.now() if at_s is None else at_s) - record.began_s
        times = self.times.take(record.number) if record.number >= 0 else None
        if times is not None:
            record.arrived_s, record.started_s, record.answered_s = times
        if record.trace_parent:
            record.trace_id = _trace_id(record.trace_parent)
        for listener in self._listeners:
            listener(record)


def _trace_id(trace_parent: str) -> str:
    """Return the id of the trace that a W3C `traceparent` names; empty if it is malformed."""
    found = _TRACE_PARENT.fullmatch(trace_parent)
    return "" if found is None or found[1] == _NO_TRACE else found[1]
