"""HttpFrontEnd: serves an `HttpApp` with uvicorn on a socket that is bound already."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import uvicorn

from coinfer.errors import ConfigurationError
from coinfer.runtime.attention import Attend
from coinfer.server.access import Access
from coinfer.server.handover import Handover
from coinfer.server.http.acceptor import Acceptor, is_offered
from coinfer.server.http.app import HttpApp
from coinfer.server.http.direct import Direct
from coinfer.server.http.infer_steps import InferSteps
from coinfer.server.http.routes import Page, Routes
from coinfer.server.http.unused_connection import Connections
from coinfer.server.limits import ServerLimits
from coinfer.server.room import Room
from coinfer.server.service import Service
from coinfer.server.telemetry.recorder import Recorder
from coinfer.server.tls import Tls

__all__ = ["HttpFrontEnd"]


class HttpFrontEnd:
    """HTTP on one socket.

    Args:
        service: What answers.
        bound: The socket.
        limits: What one request may take.
        access: Who may ask.
        pages: What is answered beside the protocol, by path.
        tls: For HTTPS; None: HTTP.
        recorder: Follows each request; None: nobody wants to be told of them.
    """

    def __init__(
        self,
        service: Service,
        bound: socket.socket,
        *,
        limits: ServerLimits,
        access: Access,
        pages: Mapping[str, Page],
        tls: Tls | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._service = service
        self._bound = bound
        self._limits = limits
        self._access = access
        self._pages = pages
        self._tls = tls
        self._recorder = recorder
        self._aside = ThreadPoolExecutor(2, thread_name_prefix="coinfer-server-aside")
        self._direct: Direct | None = None
        self._server: uvicorn.Server | None = None
        self._acceptor: Acceptor | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self, handover: Handover) -> None:
        """Listen from now on.

        Raises:
            ConfigurationError: the files of the certificate cannot be used.
        """
        routes = Routes(self._service, self._pages)
        limits, aside, recorder = self._limits, self._aside, self._recorder
        room = Room(limits.bodies_bytes)
        steps = InferSteps(self._service, limits, self._access)
        app = HttpApp(steps, handover, limits, room, routes, aside, recorder)
        direct = self._direct = Direct(steps, limits, room, handover, aside, recorder)
        connections = Connections(limits, direct)
        tls = self._tls
        config = uvicorn.Config(
            app,
            loop="none",
            http=cast(Any, connections),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=max(1, math.ceil(self._limits.idle_s)),
            ssl_certfile=None if tls is None else tls.certificate,
            ssl_keyfile=None if tls is None else tls.key,
            ssl_ca_certs=None
            if tls is None or tls.client_authorities is None
            else str(tls.client_authorities),
            ssl_cert_reqs=2 if tls is not None and tls.client_authorities is not None else 0,
        )
        try:
            config.load()
        except OSError as error:  # ssl.SSLError is one
            raise ConfigurationError(f"the certificate cannot be used: {error}") from error
        server = self._server = uvicorn.Server(config)
        if is_offered():
            state = server.server_state
            connections.give(config=config, server_state=state, app_state={}, _loop=None)
            self._acceptor = Acceptor(self._bound, connections, handover, config.ssl)
            self._acceptor.begin()
        sockets = [self._bound] if self._acceptor is None else []
        self._serving = asyncio.create_task(server.serve(sockets=sockets))
        while not server.started and not self._serving.done():
            await asyncio.sleep(0.001)

    def attend(self, attend: Attend | None) -> None:
        """It has no thread beside the loop's that takes requests."""

    async def stop(self, grace_s: float) -> None:
        """End what is asked within so many seconds, and close."""
        server, serving = self._server, self._serving
        if server is None or serving is None:
            return
        if self._acceptor is not None:
            await self._acceptor.close()
        server.config.timeout_graceful_shutdown = max(1, round(grace_s))
        server.should_exit = True
        await serving
        if self._direct is not None:
            self._direct.give_up()
        self._aside.shutdown(wait=False, cancel_futures=True)
