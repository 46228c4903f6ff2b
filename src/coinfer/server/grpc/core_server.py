"""CoreServer: takes calls from gRPC's core on a thread of its own, without an event loop.

`grpc.aio` brings each event of a call to its loop by a thread and a socket, two of them before a
request is read, and the answer by one more. Here the thread that waits for the core handles the
event itself, and any thread may answer. It uses the core as `grpc.server` does, which offers no
other way to it; where a version of grpcio has another one, `grpc.aio` is used.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc

from coinfer.server.grpc.core_call import CoreCall, Event, Tag

__all__ = ["CoreServer", "is_offered"]

_log = logging.getLogger(__name__)

_USED = (
    "CompletionQueue",
    "CompletionType",
    "ReceiveCloseOnServerOperation",
    "ReceiveMessageOperation",
    "SendInitialMetadataOperation",
    "SendMessageOperation",
    "SendStatusFromServerOperation",
    "Server",
)

Take = Callable[[CoreCall], None]
"""Takes a call of one method, in the thread of the server: it must be quick."""


def is_offered() -> bool:
    """Tell whether the grpcio that is installed has what is used of it."""
    return all(hasattr(cygrpc, name) for name in _USED)


class CoreServer:
    """A server on gRPC's core.

    Args:
        options: Of the core.
        methods: By full path, what takes its calls.
    """

    def __init__(self, options: Sequence[tuple[str, Any]], methods: Mapping[str, Take]) -> None:
        self._methods = {path.encode(): take for path, take in methods.items()}
        self._server = cygrpc.Server(tuple(options), False)
        self._queue = cygrpc.CompletionQueue()
        self._server.register_completion_queue(self._queue)
        self._lock = threading.Lock()
        self._n_due = 0
        self._is_stopping = False
        self._stopped: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="coinfer-grpc", daemon=True)

    def listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Bind an address; return the port.

        Raises:
            RuntimeError: it cannot be bound.
        """
        given = () if credentials is None else (credentials._credentials,)
        port = self._server.add_http2_port(address.encode(), *given)
        if not port:
            raise RuntimeError(f"{address} cannot be bound")
        return int(port)

    def begin(self) -> None:
        """Take calls from now on."""
        self._server.start()
        self._request()
        self._thread.start()

    def stop(self, stopped: Callable[[], None]) -> None:
        """Take no more calls; something is called, in the server's thread, once all are ended."""
        self._stopped = stopped
        with self._lock:
            self._is_stopping = True
            self._n_due += 1
        self._server.shutdown(self._queue, _nothing)

    def cancel_calls(self) -> None:
        """End the calls that are under way."""
        self._server.cancel_all_calls()

    def start(self, call: Any, operations: tuple[Any, ...], tag: Tag) -> None:
        """Start operations of a call; the tag is called once, when all are completed."""
        with self._lock:
            self._n_due += 1
        try:
            call.start_server_batch(operations, tag)
        except BaseException:
            with self._lock:
                self._n_due -= 1
            raise

    def _request(self) -> None:
        """Have the next call reported."""
        with self._lock:
            if self._is_stopping:
                return
            self._n_due += 1
        self._server.request_call(self._queue, self._queue, self._called)

    def _run(self) -> None:
        """Handle what is completed, until all is."""
        queue = self._queue
        while True:
            event = queue.poll()
            try:
                event.tag(event)
            except Exception:  # noqa: BLE001 - one call must not end all others
                _log.exception("an event of gRPC could not be handled")
            # Before the next wait: a call that is kept meanwhile would keep its connection.
            event = None
            with self._lock:
                self._n_due -= 1
                if self._is_stopping and not self._n_due:
                    break
        self._server.destroy()
        self._stopped()

    def _called(self, event: Event) -> None:
        """Take a call."""
        try:
            if event.success and event.call_details.method:
                self._take(event)
        finally:
            self._request()

    def _take(self, event: Event) -> None:
        details = event.call_details
        call = CoreCall(self, event.call, event.invocation_metadata, details.deadline)
        take = self._methods.get(details.method)
        if take is None:
            call.refuse(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            call.watch()
            return
        try:
            take(call)
        except BaseException:
            call.refuse(
                grpc.StatusCode.INTERNAL, "internal error; the server's log has the details"
            )
            raise


def _nothing(_event: Event) -> None:
    """The server is stopped; what is due beside is seen elsewhere."""
