"""GrpcSender: calls over gRPC with raw tensors, over one connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coinfer.backends.base import Tensors
from coinfer.core.request import Outcome
from coinfer.errors import ConfigurationError
from coinfer.load_test.call import Answered, Call
from coinfer.model.datatypes import datatype_of
from coinfer.server.messages import INFERENCE, METHODS
from coinfer.server.raw_tensors import to_raw

__all__ = ["GrpcSender"]

_OUTCOMES = {
    "CANCELLED": Outcome.CANCELLED,
    "DEADLINE_EXCEEDED": Outcome.DROPPED,
    "RESOURCE_EXHAUSTED": Outcome.REJECTED,
    "UNAVAILABLE": Outcome.REJECTED,
}


class GrpcSender:
    """Sends calls to a server over gRPC.

    Args:
        address: HOST:PORT.
        token: A bearer token; None: none is sent.
    """

    def __init__(self, address: str, *, token: str | None = None) -> None:
        self._address = address
        self._metadata = None if token is None else (("authorization", f"Bearer {token}"),)
        self._channel: Any = None

    def prepared(self, model: str, feed: Tensors) -> Call:
        """Write the request without its parameters: protobuf joins messages by joining bytes."""
        message = INFERENCE["ModelInferRequest"](model_name=model)
        for name, array in feed.items():
            kind = "BYTES" if array.dtype.kind in "OUS" else datatype_of(array.dtype)
            message.inputs.add(name=name, datatype=kind, shape=array.shape)
            message.raw_input_contents.append(bytes(to_raw(array)))
        return Call(model, b"", message.SerializeToString())

    async def inputs(self, model: str) -> dict[str, str]:
        """Ask for the metadata of a model."""
        import grpc

        method = METHODS["ModelMetadata"]
        ask = INFERENCE[method.request](name=model).SerializeToString()
        try:
            data = await self._called(method.path)(ask, timeout=10.0, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise ConfigurationError(
                f"{self._address} does not serve model {model!r}: {_text(error)}"
            ) from error
        said = INFERENCE[method.response].FromString(data)
        return {each.name: each.datatype for each in said.inputs}

    async def send(self, call: Call, parameters: Mapping[str, Any]) -> Answered:
        """Send a call; whatever happens is an outcome."""
        import grpc

        data = call.tail
        if parameters:
            message = INFERENCE["ModelInferRequest"]()
            for name, value in parameters.items():
                field = "int64_param" if isinstance(value, int) else "string_param"
                setattr(message.parameters[name], field, value)
            data = message.SerializeToString() + data
        try:
            await self._called(METHODS["ModelInfer"].path)(data, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            outcome = _OUTCOMES.get(error.code().name, Outcome.FAILED)
            return Answered(outcome, _text(error))
        return Answered(Outcome.COMPLETED)

    async def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            await self._channel.close()

    def _called(self, path: str) -> Any:
        import grpc

        if self._channel is None:
            sizes = ("grpc.max_send_message_length", "grpc.max_receive_message_length")
            options = [(name, -1) for name in sizes]
            self._channel = grpc.aio.insecure_channel(self._address, options=options)
        return self._channel.unary_unary(path)


def _text(error: Any) -> str:
    return f"{error.code().name}: {' '.join(str(error.details()).split())}"
