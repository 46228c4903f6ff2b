"""LoopCall: a call that a coroutine answers, in the event loop of the front ends.

To the coroutine it is what it uses of a `grpc.aio.ServicerContext`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from coinfer.errors import InputError
from coinfer.server.grpc.core_call import CoreCall, Metadata
from coinfer.server.status import status_of

__all__ = ["LoopCall"]


class LoopCall:
    """One call and what answers it.

    Args:
        call: The call.
        handler: Answers it: a coroutine that gets one message or an iterator of them.
        loop: Where that runs.
    """

    def __init__(
        self,
        call: CoreCall,
        handler: grpc.RpcMethodHandler[Any, Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._call = call
        self._handler = handler
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._has_left = False

    def begin(self) -> None:
        """Answer it; called in the thread that gets calls."""
        self._soon(self._begin)
        self._call.on_leave(lambda: self._soon(self._leave))

    # for the coroutine

    def invocation_metadata(self) -> Metadata:
        """Return what the client sent beside its messages."""
        return self._call.metadata

    def time_remaining(self) -> float | None:
        """Return the seconds until the client's deadline."""
        return self._call.time_remaining()

    def cancelled(self) -> bool:
        """Tell whether the client went."""
        return self._has_left

    async def write(self, message: Any) -> None:
        """Send one of several messages; returns once it is gone."""
        pack = self._handler.response_serializer
        gone = self._loop.create_future()
        if self._call.write(message if pack is None else pack(message), self._resolver(gone)):
            await gone

    async def abort(
        self, code: grpc.StatusCode, text: str, trailing: tuple[tuple[str, str], ...] = ()
    ) -> NoReturn:
        """End the call with an error.

        Raises:
            AbortError: always, for the coroutine to end.
        """
        self._call.refuse(code, text, trailing)
        raise grpc.aio.AbortError

    # in the loop

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._run())

    def _leave(self) -> None:
        self._has_left = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._answer()
        except grpc.aio.AbortError:
            return  # the end is sent
        except asyncio.CancelledError:  # the client went, or the loop ends
            self._call.refuse(grpc.StatusCode.CANCELLED, "the call was cancelled")
        except Exception as error:  # noqa: BLE001 - whatever it is, a client gets an answer
            status = status_of(error)
            self._call.refuse(grpc.StatusCode[status.grpc], status.text)
        finally:
            self._task = None  # it knows this call: nothing is left for the collector

    async def _answer(self) -> None:
        handler, call = self._handler, self._call
        if handler.request_streaming:
            await handler.stream_stream(self._messages(), self)
            call.end()
            return
        data = await self._receive()
        if data is None:
            call.refuse(*NO_MESSAGE)
            return
        try:
            unpack = handler.request_deserializer
            asked = data if unpack is None else unpack(data)
        except DecodeError:
            raise InputError("the request is not its message") from None
        if handler.response_streaming:
            await handler.unary_stream(asked, self)
            call.end()
            return
        answer = await handler.unary_unary(asked, self)
        pack = handler.response_serializer
        call.answer(answer if pack is None else pack(answer))

    async def _messages(self) -> AsyncIterator[bytes]:
        while (data := await self._receive()) is not None:
            yield data

    async def _receive(self) -> bytes | None:
        """Wait for the next message; None: there are no more."""
        coming: asyncio.Future[bytes | None] = self._loop.create_future()
        self._call.receive(self._resolver(coming))
        return await coming

    def _resolver(self, waiting: asyncio.Future[Any]) -> Callable[..., None]:
        """Return what resolves a future of the loop from any thread."""

        def resolve(value: object) -> None:
            if not waiting.done():  # else whoever waited was cancelled
                waiting.set_result(value)

        return lambda value=None: self._soon(lambda: resolve(value))

    def _soon(self, act: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(act)


NO_MESSAGE = (
    grpc.StatusCode.UNIMPLEMENTED,
    "the call has no message; it takes exactly one",
)
"""What is said to who sends none."""
