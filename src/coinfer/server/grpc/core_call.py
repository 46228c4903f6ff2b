"""CoreCall: one call of a client, as gRPC's core has it. Any thread may use it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grpc
from grpc._cython import cygrpc

__all__ = ["CoreCall", "Event", "Metadata", "Starter", "Tag", "sent"]

Event = Any
"""Something that gRPC's core completed; its classes have no types."""

Metadata = Sequence[tuple[str, str | bytes]]

Tag = Callable[[Event], object]
"""Is called with the event once it is there, in the thread of the server."""

_NO_FLAGS = 0
_OK = 0


class Starter(Protocol):
    """Starts what a call is to do; counts what is not completed yet."""

    def start(self, call: Any, operations: tuple[Any, ...], tag: Tag) -> None:
        """Start operations of a call; the tag is called once, when all are completed."""
        ...

    def watch_soon(self, call: CoreCall) -> None:
        """Have `watch` called in a moment; in the thread of the server only."""
        ...


class CoreCall:
    """One call. What is sent after its end, or to a client that went, is dropped.

    Args:
        starter: The server.
        call: The core's own object.
        metadata: What the client sent beside its messages.
        until_s: The client's deadline, in seconds since 1970; far away: it has none.
    """

    __slots__ = (
        "_call",
        "_has_begun",
        "_is_closed",
        "_is_ended",
        "_is_watched",
        "_leave",
        "_lock",
        "_starter",
        "_until_s",
        "metadata",
    )

    def __init__(self, starter: Starter, call: Any, metadata: Metadata, until_s: float) -> None:
        self.metadata = metadata
        self._starter = starter
        self._call = call
        self._until_s = until_s
        self._lock = threading.Lock()
        self._leave: Callable[[], None] | None = None
        self._has_begun = self._is_ended = self._is_watched = self._is_closed = False

    @property
    def is_over(self) -> bool:
        """Whether nothing can be sent any more: it is answered, or the client went."""
        return self._is_ended or self._is_closed

    def time_remaining(self) -> float:
        """Return the seconds until the client's deadline; very many: it has none."""
        return max(0.0, self._until_s - time.time())

    def receive(self, then: Callable[[bytes | None], None]) -> None:
        """Have something called with the next message; None: the client sends no more."""

        def received(event: Event) -> None:
            then(event.batch_operations[0].message())

        if not self._start((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), received):
            then(None)

    def on_leave(self, leave: Callable[[], None]) -> None:
        """Have something called if the client goes before the call is ended.

        To be called once, in the thread of the server. That is seen from the next moment on, since
        most calls are answered until then: gRPC's core need not be asked about those.
        """
        with self._lock:
            if self._is_ended:
                return
            self._leave = leave
        self._starter.watch_soon(self)

    def watch(self) -> None:
        """See from now on whether the client goes. Again is fine."""
        with self._lock:
            if self._is_watched:
                return
            self._starter.start(self._call, (_close(),), self._closed)
            self._is_watched = True

    def write(self, message: bytes, then: Callable[[], None]) -> bool:
        """Send one of several messages, and have something called once it is gone.

        Returns:
            Whether it is sent; if not, nothing is called.
        """
        operations = (cygrpc.SendMessageOperation(message, _NO_FLAGS),)
        return self._send(operations, is_end=False, tag=lambda _: then())

    def answer(self, message: bytes) -> bool:
        """Send the only message and end the call; False: it was over."""
        operations = (cygrpc.SendMessageOperation(message, _NO_FLAGS), _good_end())
        return self._send(operations, is_end=True, tag=sent)

    def end(self) -> bool:
        """End a call whose messages were sent; False: it was over."""
        return self._send((_good_end(),), is_end=True, tag=sent)

    def refuse(
        self, code: grpc.StatusCode, text: str, trailing: tuple[tuple[str, str], ...] = ()
    ) -> bool:
        """End the call with an error; False: it was over."""
        number = code.value[0]
        said = text.encode(errors="replace")
        end = cygrpc.SendStatusFromServerOperation(trailing, number, said, _NO_FLAGS)
        return self._send((end,), is_end=True, tag=sent)

    def _send(self, operations: tuple[Any, ...], *, is_end: bool, tag: Tag) -> bool:
        """Start to send; the call's own metadata go before the first that is sent."""
        with self._lock:
            if self._is_ended or self._is_closed:
                return False
            if not self._has_begun:
                first = cygrpc.SendInitialMetadataOperation((), _NO_FLAGS)
                operations = (first, *operations)
            if is_end and not self._is_watched:
                operations = (*operations, _close())
            self._starter.start(self._call, operations, tag)
            # Only now: of what cannot be sent, the client can still be told.
            self._has_begun = True
            if is_end:
                self._is_ended = self._is_watched = True
                self._leave = None  # which knows this call: nothing is left for the collector
        return True

    def _start(self, operations: tuple[Any, ...], tag: Tag) -> bool:
        with self._lock:
            if self._is_closed:
                return False
            self._starter.start(self._call, operations, tag)
        return True

    def _closed(self, event: Event) -> None:
        """Note that the client has the end of the call, or went."""
        with self._lock:
            has_left = not self._is_ended and bool(event.batch_operations[0].cancelled())
            self._is_closed = True
            leave, self._leave = self._leave, None
        if has_left and leave is not None:
            leave()


def _good_end() -> Any:
    return cygrpc.SendStatusFromServerOperation((), _OK, b"", _NO_FLAGS)


def _close() -> Any:
    return cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS)


def sent(_event: Event) -> None:
    """Is the tag of the end of a call: nobody waits for it."""
