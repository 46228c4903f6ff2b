"""gRPC client of the suite: calls any method by name. Needs `grpcio`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from coinfer.errors import ConfigurationError
from coinfer.server.messages import HEALTH, HEALTH_SERVICE, INFERENCE, METHODS, SERVICE
from coinfer.testing.oip.verdict import fail

__all__ = ["GrpcClient"]

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
)


class GrpcClient:
    """Calls a server.

    Args:
        address: HOST:PORT.
        timeout_s: Seconds until an answer is taken as none.
        metadata: Sent with each call, e.g. a token.

    Raises:
        ConfigurationError: `grpcio` is not installed.
    """

    def __init__(
        self, address: str, timeout_s: float = 10.0, metadata: tuple[tuple[str, str], ...] = ()
    ) -> None:
        try:
            import grpc
        except ImportError as error:
            raise ConfigurationError("gRPC needs grpcio: pip install grpcio") from error
        self._grpc = grpc
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._timeout_s = timeout_s
        self._metadata = metadata

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def message(self, name: str, **fields: Any) -> Any:
        """Make a message."""
        return INFERENCE[name](**fields)

    def call(self, method: str, request: Any = None, **fields: Any) -> Any:
        """Call a method of one request with a message or its fields; the case fails on an error."""
        code, answer = self.try_call(method, request, **fields)
        if code != "OK":
            fail(f"{method}: {code}: {answer}")
        return answer

    def try_call(self, method: str, request: Any = None, **fields: Any) -> tuple[str, Any]:
        """Call a method of one request; return `OK` and the answer, or the code and the text."""
        known = METHODS[method]
        message = INFERENCE[known.request](**fields) if request is None else request
        return self._try(known.path, message, INFERENCE[known.response].FromString)

    def try_raw(self, method: str, data: bytes) -> str:
        """Send these bytes as a message; return the code."""
        known = METHODS[method]
        code, _ = self._try(known.path, data, INFERENCE[known.response].FromString)
        return code

    def try_unknown(self) -> str:
        """Call a method that the service does not have; return the code."""
        code, _ = self._try(f"/{SERVICE}/NoSuchMethod", b"", bytes)
        return code

    def health(self, service: str) -> tuple[str, Any]:
        """Ask gRPC's own service of health; return the code and the status or the text."""
        message = HEALTH["HealthCheckRequest"](service=service)
        answered = HEALTH["HealthCheckResponse"].FromString
        return self._try(f"/{HEALTH_SERVICE}/Check", message, answered)

    def stream(self, requests: Iterable[Any]) -> Iterator[Any]:
        """Send requests over one stream and yield what comes back; the case fails on an error."""
        method = METHODS["ModelStreamInfer"]
        call = self._channel.stream_stream(
            method.path,
            request_serializer=_to_bytes,
            response_deserializer=INFERENCE[method.response].FromString,
        )
        try:
            yield from call(iter(requests), timeout=self._timeout_s, metadata=self._metadata)
        except self._grpc.RpcError as error:
            fail(f"ModelStreamInfer: {error.code().name}: {error.details()}")

    def try_stream(self, requests: Iterable[Any]) -> str:
        """Send requests over one stream; return the code that it ends with."""
        method = METHODS["ModelStreamInfer"]
        call = self._channel.stream_stream(
            method.path, request_serializer=_to_bytes, response_deserializer=bytes
        )
        try:
            for _ in call(iter(requests), timeout=self._timeout_s, metadata=self._metadata):
                pass
        except self._grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    def give_up(self, method: str, request: Any) -> None:
        """Send a request and go away without waiting for the answer."""
        call = self._channel.unary_unary(
            METHODS[method].path, request_serializer=_to_bytes, response_deserializer=bytes
        )
        call.future(request, timeout=self._timeout_s, metadata=self._metadata).cancel()

    def _try(self, path: str, request: Any, answered: Any) -> tuple[str, Any]:
        call = self._channel.unary_unary(
            path, request_serializer=_to_bytes, response_deserializer=answered
        )
        try:
            return "OK", call(request, timeout=self._timeout_s, metadata=self._metadata)
        except self._grpc.RpcError as error:
            return error.code().name, error.details()


def _to_bytes(request: Any) -> bytes:
    return request if isinstance(request, bytes) else bytes(request.SerializeToString())
