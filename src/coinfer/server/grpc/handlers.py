"""Handlers: the methods of the protocol's service and of health, as coroutines.

They are called as grpc.aio does, with what they use of its `ServicerContext`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError

from coinfer.errors import InputError
from coinfer.server.access import Tenant
from coinfer.server.grpc.calls import Calls
from coinfer.server.grpc.direct import trailing_of
from coinfer.server.grpc.infer_answer import stream_answer, stream_error
from coinfer.server.grpc.infer_steps import InferSteps, Metadata
from coinfer.server.handover import Handover
from coinfer.server.inference import Inference
from coinfer.server.messages import HEALTH, HEALTH_SERVICE, INFERENCE, METHODS, SERVICE
from coinfer.server.service import Service
from coinfer.server.status import CLIENT_GONE, Status, status_of
from coinfer.server.telemetry.record import RequestRecord

__all__ = ["Handlers"]

_Context = Any
"""A `LoopCall`, or a `grpc.aio.ServicerContext`, whose methods have no types."""

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
        steps: What is done with an inference.
        handover: Waits for answers, in the loop that calls this.
    """

    def __init__(self, service: Service, steps: InferSteps, handover: Handover) -> None:
        self._service = service
        self._steps = steps
        self._handover = handover
        self._calls = Calls(service)
        self._reading: set[asyncio.Task[None]] = set()
        self._is_ending = False

    def end(self) -> None:
        """End the streams, which could go on for ever; what was asked over them is answered."""
        self._is_ending = True
        for reading in self._reading:
            reading.cancel()

    def services(self) -> dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]]:
        """Return what answers, by service and method."""
        methods = {name: self._unary(name) for name in METHODS}
        # Both get and give bytes: the tensors in them are read and written here.
        methods["ModelInfer"] = grpc.unary_unary_rpc_method_handler(self.infer)
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self.stream)
        asked = HEALTH["HealthCheckRequest"].FromString
        health = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check, asked, _to_bytes),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, asked, _to_bytes),
        }
        return {SERVICE: methods, HEALTH_SERVICE: health}

    def _unary(self, method: str) -> grpc.RpcMethodHandler[Any, Any]:
        parse = INFERENCE[METHODS[method].request].FromString

        async def answer(data: bytes, context: _Context, record: RequestRecord | None) -> Any:
            if method not in _PUBLIC:
                self._steps.tenant(_metadata(context), record)
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
        tenant = self._steps.tenant(_metadata(context), record)
        if tenant is not None:
            tenant.take()
        inference = await self._answered(data, context, record, tenant)
        return self._steps.write(inference.response())

    async def _told(
        self,
        method: str,
        answer: Callable[[bytes, _Context, RequestRecord | None], Awaitable[_T]],
        data: bytes,
        context: _Context,
    ) -> _T:
        """Answer a call, with an error too, and tell the recorder of it."""
        record = self._steps.begun(method, _metadata(context))
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

    def _ended(self, record: RequestRecord | None) -> None:
        recorder = self._steps.recorder
        if recorder is not None and record is not None:
            record.status = record.status or "OK"
            recorder.end(record)

    async def _answered(
        self,
        data: bytes,
        context: _Context,
        record: RequestRecord | None,
        tenant: Tenant | None,
    ) -> Inference:
        """Hand a request to the service and wait; who goes meanwhile cancels it."""
        remaining_s = context.time_remaining()
        inference = self._steps.submit(data, _metadata(context), remaining_s, record, tenant)
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
            tenant = self._steps.tenant(_metadata(context), None)
            async for data in requests:
                await ahead.acquire()
                answers.append(asyncio.create_task(self._streamed(data, tenant, context)))
                news.set()
        finally:
            news.set()

    async def _streamed(self, data: bytes, tenant: Tenant | None, context: _Context) -> bytes:
        """Answer one request of a stream: with an error, too, which does not end the stream."""
        number = ""
        record = self._steps.begun("ModelStreamInfer", _metadata(context))
        try:
            if tenant is not None:
                if record is not None:
                    record.tenant = tenant.name
                tenant.take()
            inference = await self._answered(data, context, record, tenant)
            number = inference.request.id
            is_final = inference.request.parameters.get("triton_enable_empty_final_response")
            answer = self._steps.write(inference.response(), is_final=is_final is True)
            return stream_answer(answer)
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


def _metadata(context: _Context) -> Metadata:
    return context.invocation_metadata() or ()


def _note(record: RequestRecord | None, why: Status) -> None:
    if record is not None:
        record.fail(why, why.grpc)


async def _abort(context: _Context, status: Status) -> NoReturn:
    """End a call with an error."""
    await context.abort(grpc.StatusCode[status.grpc], status.text, trailing_of(status))
    raise AssertionError("abort always raises")


def _id_of(data: bytes) -> str:
    """Return the id of a request that was refused, if it can be read."""
    try:
        return str(INFERENCE["ModelInferRequest"].FromString(data).id)
    except Exception:  # noqa: BLE001 - it is refused, and may be anything
        return ""


def _to_bytes(message: Any) -> bytes:
    return bytes(message.SerializeToString())
