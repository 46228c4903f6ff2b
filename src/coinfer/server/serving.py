"""Serving: a server from its sockets to its end. Binds first, then loads, then takes requests."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

from coinfer.ensembles import EnsembleDescription
from coinfer.errors import ConfigurationError
from coinfer.server.access import Access, Tenant, weights_of
from coinfer.server.control import RepositoryControl
from coinfer.server.front_end import FrontEnd, FrontEnds
from coinfer.server.grpc.front_end import GrpcFrontEnd
from coinfer.server.http.front_end import HttpFrontEnd
from coinfer.server.http.openapi import openapi_page
from coinfer.server.http.routes import Page
from coinfer.server.limits import ServerLimits
from coinfer.server.listening import bound_socket, is_loopback
from coinfer.server.model_folder import Stamp
from coinfer.server.opening import Opened
from coinfer.server.service import Service
from coinfer.server.telemetry.recorder import Listener, Recorder
from coinfer.server.tls import Tls

__all__ = ["ServeOptions", "Server"]

_log = logging.getLogger(__name__)

_LOOK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Where a server listens, and what it allows.

    Attributes:
        host: Address that it binds.
        http: Port of HTTP; 0: any that is free; None: it is not offered.
        grpc: Port of gRPC; the same.
        metrics: Port of the metrics alone; None: they are on that of HTTP only.
        tenants: Who may ask; empty: everybody.
        allow_anyone: Bind an address that others reach, though everybody may ask.
        has_shared_memory: Whether clients may share memory with the server.
        has_triton_metrics: Whether metrics have Triton's names too.
        limits: What one request may take.
        tls: For HTTPS and gRPC over TLS; None: neither.
    """

    host: str = "127.0.0.1"
    http: int | None = 8000
    grpc: int | None = None
    metrics: int | None = None
    tenants: Sequence[Tenant] = ()
    allow_anyone: bool = False
    has_shared_memory: bool = True
    has_triton_metrics: bool = False
    limits: ServerLimits = ServerLimits()
    tls: Tls | None = None

    def check(self) -> None:
        """See that they make sense together.

        Raises:
            ConfigurationError: they do not, or would open the server to everybody.
        """
        if self.http is None and self.grpc is None:
            raise ConfigurationError("neither HTTP nor gRPC is offered; give one of them a port")
        if not is_loopback(self.host) and not self.tenants and not self.allow_anyone:
            raise ConfigurationError(
                f"{self.host} is reached from other machines, and everybody could ask; give a "
                "file of tokens with --tokens, or say --allow-anyone"
            )


class Server:
    """A server. Used in a `with` block, it is closed at its end; the engine is stopped, too.

    Args:
        options: Where it listens, and what it allows.
        service: What answers; None: a fresh one.
        listeners: Who is told of each request that was answered.

    Attributes:
        options: Where it listens, and what it allows.
        service: What answers.
        ports: By front end (`http`, `grpc`, `metrics`), the port that it listens on.

    >>> import coinfer, urllib.request
    >>> from coinfer.server.opening import Opened
    >>> from coinfer.server.served_model import served
    >>> from coinfer.testing.models import tiny_linear
    >>> model = tiny_linear().model
    >>> with Server(ServeOptions(http=0)) as server:
    ...     server.open(Opened(engine=coinfer.Engine({"m": model}), models=[served("m", model)]))
    ...     url = f"http://127.0.0.1:{server.ports['http']}/v2/models/m/ready"
    ...     urllib.request.urlopen(url).status
    200
    """

    def __init__(
        self,
        options: ServeOptions,
        service: Service | None = None,
        *,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.service = service or Service()
        self.service.tokens = options.tenants
        self._recorder = Recorder(listeners) if listeners else None
        if self._recorder is not None:
            self.service.statistics.times = self._recorder.times
        self.ports: dict[str, int] = {}
        self.options = options
        self._opened: Opened | None = None
        self._control: RepositoryControl | None = None
        self._front_ends: FrontEnds | None = None
        self._grpc: GrpcFrontEnd | None = None
        self._ending = threading.Event()
        self._sockets = ExitStack()
        if not options.has_shared_memory:
            self.service.shared_memory = None
        elif self.service.shared_memory is not None:
            self.service.shared_memory.most_bytes = options.limits.body_bytes

    def start(self) -> None:
        """Listen: it is live from now on, and not ready.

        Raises:
            ConfigurationError: a port is in use, or the options make no sense.
        """
        self.options.check()
        try:
            front_ends = FrontEnds(self._made())
            front_ends.start()
        except BaseException:
            self._sockets.close()
            raise
        self._front_ends = front_ends
        if self._grpc is not None:
            self.ports["grpc"] = self._grpc.port
        self._let_attend()

    def open(
        self,
        opened: Opened,
        control: RepositoryControl | None = None,
        ensembles: Iterable[EnsembleDescription] = (),
    ) -> None:
        """Take requests: the models are loaded and warm.

        Args:
            opened: The engine, which is stopped with the server, and the models.
            control: Follows the repository, if there is one.
            ensembles: Pipelines of the models, served as models of their own.

        Raises:
            CoinferError: an ensemble does not fit to the models.
        """
        self._opened, self._control = opened, control
        self.service.weights = weights_of(self.options.tenants)
        self.service.open(opened.engine, opened.models, ensembles, most_waiting=opened.most_waiting)
        self._let_attend()

    def _let_attend(self) -> None:
        """Let the threads that take requests perform brief runs."""
        if self._front_ends is not None and self._opened is not None:
            self._front_ends.attend(self._opened.engine.attend)

    def wait(self, watch_s: float | None = None) -> None:
        """Return once the server is to end: by SIGTERM, Ctrl-C, `end`, or a fault of the engine.

        Args:
            watch_s: Seconds between two looks at the repository; None: it is not followed.

        Raises:
            CoinferError: the engine broke down.
        """
        ending = self._ending
        watching = None
        if watch_s is not None and self._control is not None:
            args = (self._control, watch_s)
            watching = threading.Thread(
                target=self._watch, args=args, name="coinfer-watch", daemon=True
            )
            watching.start()
        engine = None if self._opened is None else self._opened.engine
        while not ending.wait(_LOOK_S):
            if engine is not None and engine.fault is not None:
                raise engine.fault
        if watching is not None:
            watching.join()

    def end(self) -> None:
        """Let `wait` return. May be called by a signal handler, and again."""
        self._ending.set()

    def end_by_signals(self) -> None:
        """Let SIGTERM and the first Ctrl-C end it; the next ones act as usual."""
        for number in (signal.SIGTERM, signal.SIGINT):
            before = signal.getsignal(number)

            def handle(number: int, _frame: FrameType | None, before: Any = before) -> None:
                signal.signal(number, before if before is not None else signal.SIG_DFL)
                self._ending.set()

            signal.signal(number, handle)

    def close(self) -> None:
        """Take no more requests, answer what was taken, close the sockets, stop the engine."""
        self._ending.set()
        self.service.close()
        grace_s = self.options.limits.drain_s
        try:
            if self._front_ends is not None:
                self._front_ends.stop(grace_s)
        finally:
            self._sockets.close()
            if self.service.tenants is not None:
                self.service.tenants.close("the server is stopping")
            self.service.ensembles.close()
            if self._opened is not None:
                self._opened.engine.stop(timeout_s=grace_s)

    def __enter__(self) -> Self:
        """Start it and return it."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _made(self) -> list[FrontEnd]:
        """Bind the sockets and make what serves them."""
        options, service = self.options, self.service
        access = Access(options.tenants)
        pages = self._pages()
        made: list[FrontEnd] = []
        ports = {"http": options.http, "metrics": options.metrics}
        bound = {name: self._bound(name, port) for name, port in ports.items() if port is not None}
        for name, each in bound.items():
            shown = pages if name == "http" else {"metrics": pages["metrics"]}
            made.append(
                HttpFrontEnd(
                    service,
                    each,
                    limits=options.limits,
                    access=access,
                    pages=shown,
                    tls=options.tls,
                    recorder=self._recorder,
                )
            )
        if options.grpc is not None:
            self._grpc = GrpcFrontEnd(
                service,
                options.host,
                options.grpc,
                limits=options.limits,
                access=access,
                tls=options.tls,
                recorder=self._recorder,
            )
            made.append(self._grpc)
        return made

    def _bound(self, name: str, port: int) -> socket.socket:
        bound = self._sockets.enter_context(bound_socket(self.options.host, port, name))
        self.ports[name] = bound.getsockname()[1]
        return bound

    def _pages(self) -> Mapping[str, Page]:
        from coinfer.server.live_page import live_pages
        from coinfer.server.prometheus import metrics_page

        metrics = metrics_page(self.service, has_triton_names=self.options.has_triton_metrics)
        return {"metrics": metrics, "openapi.json": openapi_page(), **live_pages(self.service)}

    def _watch(self, control: RepositoryControl, every_s: float) -> None:
        stamps: dict[str, Stamp] = {}
        while not self._ending.wait(every_s):
            try:
                control.follow(stamps)
            except Exception:  # noqa: BLE001 - one bad look must not end all further ones
                _log.exception("the repository could not be followed")
