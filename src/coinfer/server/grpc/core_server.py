"""CoreServer: takes calls from gRPC's core on a thread of its own, without an event loop.

`grpc.aio` brings each event of a call to its loop by a thread and a socket, two of them before a
request is read, and the answer by one more. Here the thread that waits for the core handles the
event itself, and any thread may answer. It uses the core as `grpc.server` does, which offers no
other way to it; where a version of grpcio has another one, `grpc.aio` is used.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc

from coinfer.runtime.attention import Attend
from coinfer.server.front_end import change_attention
from coinfer.server.grpc.core_call import CoreCall, Event, Tag, sent

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

_MOST_REQUESTED, _LEAST_REQUESTED = 8, 3
"""Calls that the core may report before it is asked for more."""

_MOMENT_S = 0.002
"""A call that is not answered by then is watched."""

_MOST_BEFORE = 32
"""Events that are handled before what was asked, which would share runs with what they bring."""

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
        self._poll = self._queue.poll
        self._server.register_completion_queue(self._queue)
        self._lock = threading.Lock()
        self._n_due = 0
        self._n_requested = 0
        self._to_watch: deque[tuple[float, CoreCall]] = deque()
        self._soon: list[Callable[[], None]] = []
        self._n_before = 0
        self._attend: Attend | None = None
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
        self._request(_MOST_REQUESTED)
        self._thread.start()

    def attend(self, attend: Attend | None) -> None:
        """Let the thread perform brief runs, once it has taken all calls that are there.

        Args:
            attend: `Engine.attend`; None: no more.
        """
        change_attention(self._thread, self._attend, attend, self._soon.append)
        self._attend = attend

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
        """Start operations of a call; the tag is called once, when all are completed.

        Raises:
            RuntimeError: the core does not take them; then the tag is not called.
        """
        with self._lock:
            self._n_due += 1
        try:
            refused = call.start_server_batch(operations, tag)  # the core says why by a number
            if refused:
                raise RuntimeError(f"gRPC's core does not take operations of a call: {refused}")
        except Exception:
            with self._lock:
                self._n_due -= 1
            raise

    def watch_soon(self, call: CoreCall) -> None:
        """Have `watch` called in a moment; in the thread of the server only."""
        self._to_watch.append((time.monotonic() + _MOMENT_S, call))

    def _request(self, count: int) -> None:
        """Have the next calls reported."""
        for _ in range(count):
            with self._lock:
                if self._is_stopping:
                    return
                try:
                    self._server.request_call(self._queue, self._queue, self._called)
                except Exception:  # noqa: BLE001 - it is tried again after the next event
                    _log.exception("gRPC cannot be asked for the next call")
                    return
                self._n_due += 1
            self._n_requested += 1

    def _run(self) -> None:
        """Handle what is completed, until all is."""
        to_watch = self._to_watch
        while True:
            event = self._next()
            if event is not None:
                tag = event.tag
                self._handle(tag, event)
                # Rather while what was read runs than before, or while the client has its answer.
                if tag not in (self._called, sent) or self._n_requested < _LEAST_REQUESTED:
                    self._request(_MOST_REQUESTED - self._n_requested)
            # Before the next wait: a call that is kept meanwhile would keep its connection.
            event = tag = None
            if to_watch:
                self._watch()
            with self._lock:
                if self._is_stopping and self._n_due <= 0 and not to_watch:
                    break
        self._server.destroy()
        self._stopped()

    def _next(self) -> Event | None:
        """Wait for what is completed next; None: a call is to be watched, or an event is lost."""
        until_s = self._until_s()
        try:
            event = self._poll(until_s)
        except Exception:  # noqa: BLE001 - without this thread nobody is answered any more
            _log.exception("an event of gRPC is lost")
            with self._lock:
                self._n_due -= 1
            # Perhaps it was a call; one more that is reported is no harm, one fewer were.
            self._n_requested = max(0, self._n_requested - 1)
            self._request(_MOST_REQUESTED - self._n_requested)
            return None
        is_event = event.completion_type != cygrpc.CompletionType.queue_timeout
        if self._soon:
            self._n_before += is_event
            if not is_event or self._n_before >= _MOST_BEFORE:
                self._do_soon()
        return event if is_event else None

    def _do_soon(self) -> None:
        self._n_before = 0
        try:
            self._soon.pop()()
        except Exception:  # noqa: BLE001 - without this thread nobody is answered any more
            _log.exception("what was asked could not be handled")

    def _until_s(self) -> float | None:
        """Return until when to wait for what is completed, in seconds since 1970."""
        if self._soon:
            return 0.0
        to_watch = self._to_watch
        return time.time() + to_watch[0][0] - time.monotonic() if to_watch else None

    def _handle(self, tag: Tag, event: Event) -> None:
        try:
            tag(event)
        except Exception:  # noqa: BLE001 - one call must not end all others
            _log.exception("an event of gRPC could not be handled")
        with self._lock:
            self._n_due -= 1

    def _watch(self) -> None:
        """Watch the calls whose moment is over, and forget those that are answered."""
        to_watch, now_s = self._to_watch, time.monotonic()
        while to_watch and (self._is_stopping or to_watch[0][1].is_over or to_watch[0][0] <= now_s):
            try:
                to_watch.popleft()[1].watch()
            except Exception:  # noqa: BLE001 - one call must not end all others
                _log.exception("a call of gRPC cannot be watched")

    def _called(self, event: Event) -> None:
        """Take a call."""
        self._n_requested -= 1
        if event.success:  # else the server is stopped
            self._take(event)

    def _take(self, event: Event) -> None:
        details = event.call_details
        call = CoreCall(self, event.call, event.invocation_metadata, details.deadline)
        take = self._methods.get(details.method)
        if take is None:
            call.refuse(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            return
        try:
            take(call)
        except Exception:
            call.refuse(
                grpc.StatusCode.INTERNAL, "internal error; the server's log has the details"
            )
            raise


def _nothing(_event: Event) -> None:
    """The server is stopped; what is due beside is seen elsewhere."""
