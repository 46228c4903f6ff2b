"""GrpcFrontEnd: serves the protocol over gRPC, in the loop of the front ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import grpc

from coinfer.errors import ConfigurationError
from coinfer.runtime.attention import Attend
from coinfer.server.access import Access
from coinfer.server.grpc.core_call import CoreCall
from coinfer.server.grpc.core_server import CoreServer, is_offered
from coinfer.server.grpc.direct import Direct
from coinfer.server.grpc.handlers import Handlers
from coinfer.server.grpc.infer_steps import InferSteps
from coinfer.server.grpc.loop_call import LoopCall
from coinfer.server.handover import Handover
from coinfer.server.limits import ServerLimits
from coinfer.server.listening import bound_socket
from coinfer.server.messages import METHODS
from coinfer.server.service import Service
from coinfer.server.telemetry.recorder import Recorder
from coinfer.server.tls import Tls

__all__ = ["GrpcFrontEnd"]

_log = logging.getLogger(__name__)

_ROOM_BYTES = 1 << 20
"""What a message may have beside its tensors."""

_CANCEL_S = 5.0
"""Calls that are cancelled end within moments."""


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
        self._server: _Server | None = None
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
        steps = InferSteps(self._service, limits, self._access, self._recorder)
        handlers = Handlers(self._service, steps, handover)
        made = _OnCore if is_offered() else _OnAio
        server = made(options, handlers, Direct(steps, handover))
        address = f"{self._host}:{self.port}"
        credentials = None if self._tls is None else _credentials(self._tls)
        try:
            port = server.listen(address, credentials)
        except RuntimeError as error:
            why = "is the port in use? Give another one with --grpc"
            if self._tls is not None:
                why += f"; or {self._tls.key} is not the key of {self._tls.certificate}"
            raise ConfigurationError(f"gRPC cannot listen at {address}; {why}") from error
        self.port = port
        await server.begin()
        self._server, self._handlers = server, handlers

    def attend(self, attend: Attend | None) -> None:
        """Let the thread that takes calls perform brief runs; None: no more."""
        if self._server is not None:
            self._server.attend(attend)

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, end what is asked within so many seconds, and close."""
        if self._handlers is not None:
            self._handlers.end()
        if self._server is not None:
            await self._server.stop(grace_s)


class _Server(Protocol):
    """A server of gRPC, in the event loop."""

    def listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int: ...

    async def begin(self) -> None: ...

    def attend(self, attend: Attend | None) -> None: ...

    async def stop(self, grace_s: float) -> None: ...


class _OnCore:
    """Inferences need no event loop; all else is answered in it."""

    def __init__(self, options: list[tuple[str, Any]], handlers: Handlers, direct: Direct) -> None:
        self._loop = asyncio.get_running_loop()
        takes = {
            f"/{service}/{method}": self._take_of(handler)
            for service, methods in handlers.services().items()
            for method, handler in methods.items()
        }
        takes[METHODS["ModelInfer"].path] = direct.take
        self._core = CoreServer(options, takes)

    def listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        return self._core.listen(address, credentials)

    async def begin(self) -> None:
        self._core.begin()

    def attend(self, attend: Attend | None) -> None:
        self._core.attend(attend)

    async def stop(self, grace_s: float) -> None:
        stopped = asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed: it was not waited for
                self._loop.call_soon_threadsafe(stopped.set)

        self._core.stop(tell)
        try:
            async with asyncio.timeout(grace_s):
                await stopped.wait()
        except TimeoutError:
            self._core.cancel_calls()
            try:
                async with asyncio.timeout(_CANCEL_S):
                    await stopped.wait()
            except TimeoutError:
                _log.warning("calls of gRPC were cancelled, and did not end")

    def _take_of(self, handler: grpc.RpcMethodHandler[Any, Any]) -> Callable[[CoreCall], None]:
        return lambda call: LoopCall(call, handler, self._loop).begin()


class _OnAio:
    """All is answered in the event loop."""

    def __init__(self, options: list[tuple[str, Any]], handlers: Handlers, _direct: Direct) -> None:
        self._aio = grpc.aio.server(options=options)
        generic = grpc.method_handlers_generic_handler
        self._aio.add_generic_rpc_handlers(
            [generic(service, methods) for service, methods in handlers.services().items()]
        )

    def listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        if credentials is None:
            return int(self._aio.add_insecure_port(address))
        return int(self._aio.add_secure_port(address, credentials))

    async def begin(self) -> None:
        await self._aio.start()

    def attend(self, attend: Attend | None) -> None:
        """The loop's thread takes the calls."""

    async def stop(self, grace_s: float) -> None:
        await self._aio.stop(grace_s)


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    try:
        pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        roots = None if tls.client_authorities is None else tls.client_authorities.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the certificate cannot be used: {error}") from error
    return grpc.ssl_server_credentials([pair], roots, roots is not None)
