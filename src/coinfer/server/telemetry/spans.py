"""Spans: an inference as spans of OpenTelemetry, made once it is answered, with the engine's times.

A span has no cost while its request is under way, and exporting is the affair of a thread of
OpenTelemetry's.
"""

from __future__ import annotations

import threading
from typing import Any

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from coinfer import __version__
from coinfer.server.telemetry.record import RequestRecord

__all__ = ["Spans"]

_INFERENCES = ("infer", "ModelInfer", "ModelStreamInfer")
_SERVERS_FAULT = (
    "UNKNOWN",
    "DEADLINE_EXCEEDED",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
)
"""Statuses of gRPC that are errors of a server, as OpenTelemetry's conventions have it."""

_MOST_TEXT = 200


class Spans:
    """Makes three spans of each inference: the request and in it `queue` and `compute`.

    A request that comes with a W3C `traceparent` is a child of that; where that was not sampled, it
    has no span. Sampling of others is as `OTEL_TRACES_SAMPLER` says: all by default.

    Args:
        provider: A `TracerProvider` of OpenTelemetry.
    """

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("coinfer.server", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def tell(self, record: RequestRecord) -> None:
        """Make the spans of a request that was answered, and note the id of their trace."""
        if record.call not in _INFERENCES:
            return
        carrier = {"traceparent": record.trace_parent, "tracestate": record.trace_state}
        parent = self._propagator.extract(carrier) if record.trace_parent else None
        is_served = record.number >= 0  # else any client could make names up
        name = f"infer {record.model}" if is_served else "infer"
        kind = trace.SpanKind.SERVER
        span = self._tracer.start_span(name, parent, kind, start_time=record.at_ns)
        context = span.get_span_context()
        if context.is_valid:
            record.trace_id = trace.format_trace_id(context.trace_id)
        if not span.is_recording():
            return
        span.set_attributes(_attributes(record))
        if _is_servers_fault(record.status):
            span.set_status(trace.StatusCode.ERROR, record.reason)
        inside = trace.set_span_in_context(span)
        started_s, answered_s = record.started_s, record.answered_s
        if answered_s is not None:
            until_s = answered_s if started_s is None else started_s
            self._part("queue", inside, _ns(record, record.arrived_s), _ns(record, until_s))
            if started_s is not None:
                self._part("compute", inside, _ns(record, started_s), _ns(record, answered_s))
        span.end(_ns(record, record.began_s + record.total_s))

    def _part(self, name: str, inside: Any, from_ns: int, to_ns: int) -> None:
        self._tracer.start_span(name, inside, start_time=from_ns).end(to_ns)

    def close(self, timeout_s: float = 3.0) -> None:
        """Export what is left, but do not wait longer than this for who collects it."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(timeout_s)


def _attributes(record: RequestRecord) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "coinfer.request.id": record.id[:_MOST_TEXT],
        "coinfer.model.name": record.model[:_MOST_TEXT],
        "coinfer.model.version": record.version[:_MOST_TEXT],
        "network.protocol.name": record.transport,
    }
    if record.tenant:
        found["coinfer.tenant"] = record.tenant
    if record.kind:
        found["error.type"] = record.kind
    if isinstance(record.status, int):
        found["http.response.status_code"] = record.status
    else:
        found["rpc.system"] = "grpc"
        found["rpc.response.status_code"] = record.status
    return found


def _is_servers_fault(status: int | str) -> bool:
    return status >= 500 if isinstance(status, int) else status in _SERVERS_FAULT


def _ns(record: RequestRecord, at_s: float) -> int:
    """Return a moment of the engine's time in nanoseconds since 1970."""
    return record.at_ns + round((at_s - record.began_s) * 1e9)
