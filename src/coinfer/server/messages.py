"""Messages: what the Open Inference Protocol sends over gRPC, and which calls there are.

Needs `protobuf`, which `onnx` brings, and not `grpcio`: servers, clients and tests build their
calls from `METHODS`.
"""

from __future__ import annotations

from dataclasses import dataclass

from coinfer.server.descriptors import Messages
from coinfer.server.protocol_fields import (
    CONFIG_ENUMS,
    CONFIG_FIELDS,
    HEALTH_ENUMS,
    HEALTH_FIELDS,
    PROTOCOL_FIELDS,
)

__all__ = ["HEALTH", "HEALTH_SERVICE", "INFERENCE", "METHODS", "SERVICE", "Method"]

SERVICE = "inference.GRPCInferenceService"
"""Full name of the service."""

HEALTH_SERVICE = "grpc.health.v1.Health"
"""Full name of gRPC's own service of health."""

INFERENCE = Messages("inference", {**CONFIG_FIELDS, **PROTOCOL_FIELDS}, CONFIG_ENUMS)
"""Messages of the protocol and of a model's configuration, by name."""

HEALTH = Messages("grpc.health.v1", HEALTH_FIELDS, HEALTH_ENUMS)
"""Messages of gRPC's own service of health, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One call of the service.

    Attributes:
        name: Its name.
        request: Name of the message that is sent.
        response: Name of the message that comes back.
        streams: Whether any number of both go over one call.
    """

    name: str
    request: str
    response: str
    streams: bool = False

    @property
    def path(self) -> str:
        """Full path of the call.

        >>> METHODS["ServerLive"].path
        '/inference.GRPCInferenceService/ServerLive'
        """
        return f"/{SERVICE}/{self.name}"


_UNARY = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
)

METHODS = {
    **{
        name: Method(name=name, request=f"{name}Request", response=f"{name}Response")
        for name in _UNARY
    },
    "ModelStreamInfer": Method(
        name="ModelStreamInfer",
        request="ModelInferRequest",
        response="ModelStreamInferResponse",
        streams=True,
    ),
}
"""All calls of the service, by name."""
