"""GrpcFrontEnd: serves the protocol over gRPC, in the loop of the front ends."""

from __future__ import annotations

from typing import Any

import grpc

from coinfer.errors import ConfigurationError
from coinfer.server.access import Access
from coinfer.server.grpc.handlers import Handlers
from coinfer.server.handover import Handover
from coinfer.server.limits import ServerLimits
from coinfer.server.listening import bound_socket
from coinfer.server.service import Service
from coinfer.server.telemetry.recorder import Recorder
from coinfer.server.tls import Tls

__all__ = ["GrpcFrontEnd"]

_ROOM_BYTES = 1 << 20
"""What a message may have beside its tensors."""


class GrpcFrontEnd:
    """gRPC on one port.

    Args:
        service: What answers.
        host: Address to bind.
        port: 0: any that is free.
        limits: What one request may take.
        access: Who may ask.
        tls: For TLS; None: without.
        recorder: Follows each request; None: nobody wants to be told of them.

    Attributes:
        port: Where it listens, once it does.
    """

    def __init__(
        self,
        service: Service,
        host: str,
        port: int,
        *,
        limits: ServerLimits,
        access: Access,
        tls: Tls | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.port = port
        self._service = service
        self._host = f"[{host}]" if ":" in host else host
        self._limits = limits
        self._access = access
        self._tls = tls
        self._recorder = recorder
        self._server: grpc.aio.Server | None = None
        self._handlers: Handlers | None = None

    async def start(self, handover: Handover) -> None:
        """Listen from now on.

        Raises:
            ConfigurationError: the port is taken, or the files of the certificate cannot be used.
        """
        if self.port:  # gRPC itself would write to stderr why it cannot
            bound_socket(self._host.strip("[]"), self.port, "grpc").close()
        limits = self._limits
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", limits.body_bytes + _ROOM_BYTES),
            ("grpc.max_send_message_length", -1),
            # Else a second server could take the port of a first one, and half of its requests.
            ("grpc.so_reuseport", 0),
            ("grpc.max_connection_idle_ms", int(limits.idle_s * 1e3)),
        ]
        server = grpc.aio.server(options=options)
        handlers = Handlers(self._service, handover, limits, self._access, self._recorder)
        server.add_generic_rpc_handlers(handlers.generic())
        address = f"{self._host}:{self.port}"
        try:
            if self._tls is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, _credentials(self._tls))
        except RuntimeError as error:
            await server.stop(None)
            why = "is the port in use? Give another one with --grpc"
            if self._tls is not None:
                why += f"; or {self._tls.key} is not the key of {self._tls.certificate}"
            raise ConfigurationError(f"gRPC cannot listen at {address}; {why}") from error
        self.port = port
        await server.start()
        self._server, self._handlers = server, handlers

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, end what is asked within so many seconds, and close."""
        if self._handlers is not None:
            self._handlers.end()
        if self._server is not None:
            await self._server.stop(grace_s)


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    try:
        pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        roots = None if tls.client_authorities is None else tls.client_authorities.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the certificate cannot be used: {error}") from error
    return grpc.ssl_server_credentials([pair], roots, roots is not None)
