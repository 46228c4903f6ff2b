"""Handlers: the methods of the protocol's service and of health, as grpc.aio calls them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError

from coinfer.errors import InputError
from coinfer.server.access import Access, Tenant
from coinfer.server.grpc.calls import Calls
from coinfer.server.grpc.infer_answer import stream_answer, stream_error, write_infer
from coinfer.server.grpc.infer_message import parse_infer
from coinfer.server.handover import Handover
from coinfer.server.inference import EXPLAIN, Inference
from coinfer.server.limits import ServerLimits
from coinfer.server.messages import HEALTH, HEALTH_SERVICE, INFERENCE, METHODS, SERVICE
from coinfer.server.service import Service
from coinfer.server.status import CLIENT_GONE, Status, status_of
from coinfer.server.telemetry.record import RequestRecord
from coinfer.server.telemetry.recorder import Recorder

__all__ = ["Handlers"]

_Context = Any
"""A `grpc.aio.ServicerContext`: its methods have no types."""

_T = TypeVar("_T")

_PUBLIC = ("ServerLive", "ServerReady")
"""Probes have no tokens."""

_STREAMED_AHEAD = 256
"""Requests of one stream that are under way; more are read when the first one is answered."""

_SERVING, _NOT_SERVING = 1, 2
_LOOK_S = 0.5


class Handlers:
    """Translates calls.

    Args:
        service: What answers.
        handover: Waits for answers, in the loop that calls this.
        limits: What one request may take.
        access: Who may ask.
        recorder: Follows each request; None: nobody wants to be told of them.
    """

    def __init__(
        self,
        service: Service,
        handover: Handover,
        limits: ServerLimits,
        access: Access,
        recorder: Recorder | None = None,
    ) -> None:
        self._service = service
        self._handover = handover
        self._limits = limits
        self._access = access
        self._recorder = recorder
        self._calls = Calls(service)
        self._reading: set[asyncio.Task[None]] = set()
        self._is_ending = False

    def end(self) -> None:
        """End the streams, which could go on for ever; what was asked over them is answered."""
        self._is_ending = True
        for reading in self._reading:
            reading.cancel()

    def generic(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """Return what a server of grpc.aio is to be given."""
        methods: dict[str, Any] = {name: self._unary(name) for name in METHODS}
        # Both get and give bytes: the tensors in them are read and written here.
        methods["ModelInfer"] = grpc.unary_unary_rpc_method_handler(self.infer)
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self.stream)
        asked = HEALTH["HealthCheckRequest"].FromString
        health = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check, asked, _to_bytes),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, asked, _to_bytes),
        }
        generic = grpc.method_handlers_generic_handler
        return generic(SERVICE, methods), generic(HEALTH_SERVICE, health)

    def _unary(self, method: str) -> grpc.RpcMethodHandler[Any, Any]:
        parse = INFERENCE[METHODS[method].request].FromString

        async def answer(data: bytes, context: _Context, record: RequestRecord | None) -> Any:
            if method not in _PUBLIC:
                self._tenant(context, record)
            try:
                request = parse(data)
            except DecodeError:
                raise InputError(f"the request of {method} is not its message") from None
            return await self._calls.answer(method, request)

        async def told(data: bytes, context: _Context) -> Any:
            return await self._told(method, answer, data, context)

        return grpc.unary_unary_rpc_method_handler(told, None, _to_bytes)

    async def infer(self, data: bytes, context: _Context) -> bytes:
        """Answer `ModelInfer`; the deadline of the call is that of the request."""
        return await self._told("ModelInfer", self._infer, data, context)

    async def _infer(self, data: bytes, context: _Context, record: RequestRecord | None) -> bytes:
        tenant = self._tenant(context, record)
        if tenant is not None:
            tenant.take()
        return write_infer((await self._answered(data, context, record, tenant)).response())

    async def _told(
        self,
        method: str,
        answer: Callable[[bytes, _Context, RequestRecord | None], Awaitable[_T]],
        data: bytes,
        context: _Context,
    ) -> _T:
        """Answer a call, with an error too, and tell the recorder of it."""
        record = self._begun(method, context)
        try:
            return await answer(data, context, record)
        except asyncio.CancelledError:
            _note(record, CLIENT_GONE)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, a client gets an answer
            status = status_of(error, "" if record is None else record.id)
            _note(record, status)
            await _abort(context, status)
        finally:
            self._ended(record)

    def _begun(self, method: str, context: _Context) -> RequestRecord | None:
        if self._recorder is None:
            return None
        sent = dict(context.invocation_metadata() or ())
        parent, state = (str(sent.get(name, "")) for name in ("traceparent", "tracestate"))
        return self._recorder.begin("grpc", method, parent, state)

    def _ended(self, record: RequestRecord | None) -> None:
        if self._recorder is not None and record is not None:
            record.status = record.status or "OK"
            self._recorder.end(record)

    async def _answered(
        self,
        data: bytes,
        context: _Context,
        record: RequestRecord | None,
        tenant: Tenant | None,
    ) -> Inference:
        """Hand a request to the service and wait; who goes meanwhile cancels it."""
        request = parse_infer(data, self._limits, self._service.shared_memory)
        if record is not None:
            record.model, record.version = request.model, request.version
            record.id = request.id or record.id
        if any(name == "x-coinfer-explain" for name, _ in context.invocation_metadata() or ()):
            request = request._replace(parameters={**request.parameters, EXPLAIN: True})
        deadline_s = context.time_remaining()
        if deadline_s is not None and deadline_s > 1e9:
            deadline_s = None  # a client that gives none may say so by a time far away
        inference = self._service.infer(
            request, deadline_s=deadline_s, tenant="" if tenant is None else tenant.name
        )
        if record is not None:
            record.version = inference.served.version
            inference.note_number(record.note_number)
        try:
            await self._handover.answered(inference)
        except asyncio.CancelledError:
            inference.cancel()
            raise
        return inference

    async def stream(self, requests: AsyncIterator[bytes], context: _Context) -> None:
        """Answer `ModelStreamInfer`: in the order of the requests, many of which run at once."""
        ahead = asyncio.Semaphore(_STREAMED_AHEAD)
        answers: deque[asyncio.Task[bytes]] = deque()
        news = asyncio.Event()
        reading = asyncio.create_task(self._read(requests, context, answers, ahead, news))
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)
        try:
            while answers or not reading.done():
                if not answers:
                    news.clear()
                    if not answers and not reading.done():
                        await news.wait()
                    continue
                await context.write(await answers[0])
                answers.popleft()
                ahead.release()
            if not reading.cancelled():
                await reading
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001
            await _abort(context, status_of(error))
        finally:
            reading.cancel()
            for task in answers:
                task.cancel()

    async def _read(
        self,
        requests: AsyncIterator[bytes],
        context: _Context,
        answers: deque[asyncio.Task[bytes]],
        ahead: asyncio.Semaphore,
        news: asyncio.Event,
    ) -> None:
        try:
            tenant = self._tenant(context)
            async for data in requests:
                await ahead.acquire()
                answers.append(asyncio.create_task(self._streamed(data, tenant, context)))
                news.set()
        finally:
            news.set()

    async def _streamed(self, data: bytes, tenant: Tenant | None, context: _Context) -> bytes:
        """Answer one request of a stream: with an error, too, which does not end the stream."""
        number = ""
        record = self._begun("ModelStreamInfer", context)
        try:
            if tenant is not None:
                _name(record, tenant)
                tenant.take()
            inference = await self._answered(data, context, record, tenant)
            number = inference.request.id
            is_final = inference.request.parameters.get("triton_enable_empty_final_response")
            return stream_answer(write_infer(inference.response(), is_final=is_final is True))
        except asyncio.CancelledError:
            _note(record, CLIENT_GONE)
            raise
        except Exception as error:  # noqa: BLE001
            status = status_of(error, "" if record is None else record.id)
            _note(record, status)
            return stream_error(status.text, number or _id_of(data))
        finally:
            self._ended(record)

    async def check(self, request: Any, context: _Context) -> Any:
        """Answer `Check` of health."""
        status = self._health(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service here")
        return HEALTH["HealthCheckResponse"](status=status)

    async def watch(self, request: Any, context: _Context) -> None:
        """Answer `Watch` of health: its status, and again whenever that changes."""
        said = -1
        while not context.cancelled():
            is_ending = self._is_ending
            status = self._health(request.service) or 3
            if status != said:
                await context.write(HEALTH["HealthCheckResponse"](status=status))
                said = status
            if is_ending:
                return
            await asyncio.sleep(_LOOK_S)

    def _health(self, service: str) -> int | None:
        if service not in ("", SERVICE):
            return None
        return _SERVING if self._service.is_ready else _NOT_SERVING

    def _tenant(self, context: _Context, record: RequestRecord | None = None) -> Tenant | None:
        """Find out who calls.

        Raises:
            UnauthenticatedError: nobody who may.
        """
        if self._access.is_open:
            return None
        sent = dict(context.invocation_metadata() or ())
        tenant = self._access.check(str(sent.get("authorization", "")))
        if tenant is not None:
            _name(record, tenant)
        return tenant


def _name(record: RequestRecord | None, tenant: Tenant) -> None:
    if record is not None:
        record.tenant = tenant.name


def _note(record: RequestRecord | None, why: Status) -> None:
    if record is not None:
        record.fail(why, why.grpc)


async def _abort(context: _Context, status: Status) -> NoReturn:
    """End a call with an error."""
    trailing: tuple[tuple[str, str], ...] = ()
    if status.retry_after_s is not None:
        trailing = (("grpc-retry-pushback-ms", str(max(1, round(status.retry_after_s * 1e3)))),)
    await context.abort(grpc.StatusCode[status.grpc], status.text, trailing)
    raise AssertionError("abort always raises")


def _id_of(data: bytes) -> str:
    """Return the id of a request that was refused, if it can be read."""
    try:
        return str(INFERENCE["ModelInferRequest"].FromString(data).id)
    except Exception:  # noqa: BLE001 - it is refused, and may be anything
        return ""


def _to_bytes(message: Any) -> bytes:
    return bytes(message.SerializeToString())
