"""HttpApp: the protocol as an ASGI application. It translates; the `Service` answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any, ParamSpec, TypeVar

from coinfer.errors import ClosedError
from coinfer.server.access import Tenant
from coinfer.server.handover import Handover
from coinfer.server.http.body import ClientGoneError, Receive, read_body, unpacked
from coinfer.server.http.infer_steps import InferSteps, Sent, refusal, text_of, whole_of
from coinfer.server.http.reply import Reply
from coinfer.server.http.routes import Ask, Routes
from coinfer.server.http.sending import QUICK_BYTES, Send, packed, send_reply
from coinfer.server.inference import Inference
from coinfer.server.limits import ServerLimits
from coinfer.server.room import Held, Room
from coinfer.server.status import CLIENT_GONE
from coinfer.server.telemetry.record import RequestRecord
from coinfer.server.telemetry.recorder import Recorder

__all__ = ["HttpApp"]

_WATCH_AFTER_S = 0.02
"""A client that goes sooner finds its request answered already, or about to be."""

_MOST_BYTES = 1 << 20
"""Of a request that has no tensors."""

_PACKED_RATIO = 100
"""What comes of packed bytes, if somebody means it ill."""

_P = ParamSpec("_P")
_T = TypeVar("_T")

_Scope = MutableMapping[str, Any]


class HttpApp:
    """The ASGI application.

    Args:
        steps: What is done with an inference.
        handover: Waits for answers, in the loop that calls this.
        limits: What one request may take.
        room: Of all requests.
        routes: What else is answered beside inferences.
        aside: Does what takes long, so that others need not wait for it.
        recorder: Follows each request; None: nobody wants to be told of them.
    """

    def __init__(
        self,
        steps: InferSteps,
        handover: Handover,
        limits: ServerLimits,
        room: Room,
        routes: Routes,
        aside: Executor,
        recorder: Recorder | None = None,
    ) -> None:
        self._handover = handover
        self._limits = limits
        self._few = replace(limits, body_bytes=min(limits.body_bytes, _MOST_BYTES))
        self._steps = steps
        self._routes = routes
        self._aside = aside
        self._recorder = recorder
        self._room = room

    async def __call__(self, scope: _Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        recorder = self._recorder
        if recorder is None:
            await self._answer(scope, headers, receive, send, None)
            return
        call = f"{scope['method']} {scope['path']}"
        parent, state = text_of(headers, b"traceparent"), text_of(headers, b"tracestate")
        record = recorder.begin("http", call, parent, state)
        try:
            await self._answer(scope, headers, receive, send, record)
        finally:
            recorder.end(record)

    async def _answer(
        self,
        scope: _Scope,
        headers: Sent,
        receive: Receive,
        send: Send,
        record: RequestRecord | None,
    ) -> None:
        try:
            try:
                reply = await self._reply(scope, headers, receive, record)
            except ClientGoneError:
                if record is not None:
                    record.fail(CLIENT_GONE, CLIENT_GONE.http)
                return
            except asyncio.CancelledError:
                closed = ClosedError("the server is stopping and waits no longer")
                reply = refusal(closed, record)
            except Exception as error:  # noqa: BLE001 - whatever it is, a client gets an answer
                reply = refusal(error, record)
            if record is not None:
                record.status = reply.status
            accepted = headers.get(b"accept-encoding")
            if accepted is not None and (b"gzip" in accepted or b"deflate" in accepted):
                size = sum(map(len, reply.parts))
                reply = await self._done(size, packed, reply, accepted.decode("latin-1"))
            await send_reply(reply, send)
        except asyncio.CancelledError:  # the server stops and does not wait any longer
            return

    async def _reply(
        self, scope: _Scope, headers: Sent, receive: Receive, record: RequestRecord | None
    ) -> Reply:
        method, path = scope["method"], scope["path"]
        # Probes have no tokens, and a browser has none before the page asks for one.
        is_public = path.startswith("/v2/health/") or path == "/"
        tenant = None if is_public else self._steps.tenant(headers, record)
        parts = path.strip("/").split("/")
        if parts[-1] == "infer" and method == "POST" and parts[:2] == ["v2", "models"]:
            if tenant is not None:
                tenant.take()
            match parts[2:]:
                case [model, "infer"]:
                    return await self._infer(model, "", headers, receive, record, tenant)
                case [model, "versions", version, "infer"]:
                    return await self._infer(model, version, headers, receive, record, tenant)
        body = b""
        if method not in ("GET", "HEAD"):
            limits = self._few
            with self._room.holding() as held:
                read = await read_body(receive, whole_of(headers, b"content-length"), limits, held)
            encoding = text_of(headers, b"content-encoding")
            size = len(read) * _PACKED_RATIO if encoding else 0
            body = bytes(await self._done(size, unpacked, read, encoding, limits))
        return await self._routes.answer(Ask(method, tuple(parts), body, scope["query_string"]))

    async def _infer(
        self,
        model: str,
        version: str,
        headers: Sent,
        receive: Receive,
        record: RequestRecord | None,
        tenant: Tenant | None,
    ) -> Reply:
        if record is not None:
            record.call, record.model, record.version = "infer", model, version
        with self._room.holding() as held:
            return await self._held_infer(held, model, version, headers, receive, record, tenant)

    async def _held_infer(
        self,
        held: Held,
        model: str,
        version: str,
        headers: Sent,
        receive: Receive,
        record: RequestRecord | None,
        tenant: Tenant | None,
    ) -> Reply:
        steps, limits = self._steps, self._limits
        header_length = steps.header_length(headers)
        encoding = headers.get(b"content-encoding")
        length = whole_of(headers, b"content-length")
        body = await read_body(receive, length, limits, held, header_length or 0)
        if encoding is not None:
            size, text = len(body) * _PACKED_RATIO, encoding.decode("latin-1")
            body = await self._done(size, unpacked, body, text, limits, header_length or 0)
            held.take(len(body))
        size = len(body) if header_length is None else header_length
        request = await self._done(size, steps.parse, model, version, body, header_length)
        del body
        inference = steps.submit(request, headers, record, tenant)
        await self._answered(inference, receive)
        response = inference.response()
        size = sum(each.array.nbytes for each in response.outputs if each.array is not None)
        return await self._done(size, steps.write, inference, response, headers)

    async def _done(self, size: int, do: Callable[_P, _T], *of: _P.args, **named: _P.kwargs) -> _T:
        """Do something with so many bytes: here, or beside the loop if they are many."""
        if size <= QUICK_BYTES:
            return do(*of, **named)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._aside, partial(do, *of, **named))

    async def _answered(self, inference: Inference, receive: Receive) -> None:
        """Wait for the answer; a client that goes meanwhile cancels its request.

        Raises:
            ClientGoneError: it went.
        """
        answered = self._handover.answered(inference)
        watch = _Watch(answered, receive)
        timer = answered.get_loop().call_later(_WATCH_AFTER_S, watch.start)
        try:
            await answered
        except asyncio.CancelledError:
            inference.cancel()
            if watch.has_gone:
                raise ClientGoneError from None
            raise
        finally:
            timer.cancel()
            watch.stop()


class _Watch:
    """Sees whether a client goes while it waits for an answer.

    Attributes:
        has_gone: Whether it did; then `answered` is cancelled.
    """

    __slots__ = ("_answered", "_receive", "_task", "has_gone")

    def __init__(self, answered: asyncio.Future[None], receive: Receive) -> None:
        self.has_gone = False
        self._answered = answered
        self._receive = receive
        self._task: asyncio.Future[Any] | None = None

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._receive())
        self._task.add_done_callback(self._came)

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _came(self, task: asyncio.Future[Any]) -> None:
        if not task.cancelled() and not self._answered.done():
            self.has_gone = True
            self._answered.cancel()
