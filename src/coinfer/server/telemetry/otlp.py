"""OTLP: where spans are sent, as the command line and OpenTelemetry's own variables say it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coinfer.errors import BackendError, ConfigurationError

if TYPE_CHECKING:
    from coinfer.server.telemetry.spans import Spans

__all__ = ["exporting_spans", "is_asked_for", "traces_url"]

_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PATH = "/v1/traces"
_HINT = "install it with `pip install 'coinfer[otel]'`"


def is_asked_for(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the variables of OpenTelemetry ask for traces.

    >>> some = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    >>> is_asked_for(some), is_asked_for({**some, "OTEL_TRACES_EXPORTER": "none"})
    (True, False)
    """
    if environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none":
        return False
    return any(environment.get(name, "").strip() for name in _VARIABLES)


def traces_url(endpoint: str) -> str:
    """Return where traces go, of an endpoint for all signals, or of the full address.

    Raises:
        ConfigurationError: it is no address of HTTP.

    >>> traces_url("http://127.0.0.1:4318")
    'http://127.0.0.1:4318/v1/traces'
    """
    try:
        parts = urlsplit(endpoint)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_address = False
    if not is_address:
        raise ConfigurationError(
            f"--otlp {endpoint!r} is no address; write for example http://127.0.0.1:4318"
        )
    return endpoint if parts.path.strip("/") else endpoint.rstrip("/") + _PATH


def exporting_spans(endpoint: str | None) -> Spans:
    """Return what makes spans and sends them over OTLP and HTTP.

    Args:
        endpoint: Where to; None: where the variables of OpenTelemetry say.

    Raises:
        ConfigurationError: the endpoint is no address of HTTP.
        BackendError: OpenTelemetry is not installed, or its variables want gRPC.
    """
    url = None if endpoint is None else traces_url(endpoint)
    if url is None and any(os.environ.get(name, "").strip() == "grpc" for name in _PROTOCOLS):
        raise BackendError(f"traces are sent over HTTP only; set {_PROTOCOLS[0]}=http/protobuf")
    try:
        missing = importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is None
    except ModuleNotFoundError:  # of a package above it
        missing = True
    if missing or importlib.util.find_spec("opentelemetry.sdk") is None:
        raise BackendError(f"traces need OpenTelemetry's SDK and its OTLP exporter; {_HINT}")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from coinfer.server.telemetry.spans import Spans

    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "coinfer"}))
    # Not at exit: that would wait for a collector that does not answer.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    return Spans(provider)
