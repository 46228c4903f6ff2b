"""Direct: inferences are answered without the event loop.

The thread that gets a request from gRPC's core hands it to the engine, and the engine's thread that
has the answer writes and sends it: nothing is woken in between. What takes long to write goes
through the loop. Checks, limits and answers are those of streams, by `InferSteps`.
"""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from typing import Any

import grpc

from coinfer.runtime import clock
from coinfer.server.grpc.core_call import CoreCall
from coinfer.server.grpc.infer_steps import InferSteps
from coinfer.server.grpc.loop_call import NO_MESSAGE
from coinfer.server.handover import Handover
from coinfer.server.inference import Inference
from coinfer.server.status import CLIENT_GONE, Status, status_of
from coinfer.server.telemetry.record import RequestRecord

__all__ = ["Direct", "trailing_of"]

_QUICK_BYTES = 64 * 1024
"""Up to here an answer is written by the engine's thread, which takes some microseconds of it."""


class Direct:
    """Answers `ModelInfer`.

    Args:
        steps: What is done with an inference.
        handover: To the event loop.
    """

    def __init__(self, steps: InferSteps, handover: Handover) -> None:
        self.steps = steps
        self.handover = handover

    def take(self, call: CoreCall) -> None:
        """Take a call, in the thread that gets them."""
        call.receive(DirectCall(self, call).asked)


class DirectCall:
    """One inference and its answer."""

    __slots__ = ("_call", "_direct", "_inference", "_record")

    def __init__(self, direct: Direct, call: CoreCall) -> None:
        self._direct = direct
        self._call = call
        self._inference: Inference | None = None
        self._record: RequestRecord | None = None

    def asked(self, data: bytes | None) -> None:
        """Hand the request to the engine."""
        call, steps = self._call, self._direct.steps
        if data is None:
            call.refuse(*NO_MESSAGE)
            return
        try:
            record = self._record = steps.begun("ModelInfer", call.metadata)
            tenant = steps.tenant(call.metadata, record)
            if tenant is not None:
                tenant.take()
            remaining_s = call.time_remaining()
            inference = steps.submit(data, call.metadata, remaining_s, record, tenant)
        except Exception as error:  # noqa: BLE001 - whatever it is, a client gets an answer
            self._refuse(error)
        else:
            self._inference = inference
            inference.on_done(self._done)
            call.on_leave(self._leave)

    def _done(self, _future: Future[dict[str, Any]]) -> None:
        """Answer, or let the loop do it."""
        # It knows its callbacks, so it is forgotten here: nothing is left for the collector.
        inference, self._inference = self._inference, None
        if inference is None or self._call.is_over:
            return
        if _is_quick(inference):
            self._answer(inference)
        else:
            self._direct.handover.soon(partial(self._answer, inference))

    def _answer(self, inference: Inference) -> None:
        try:
            is_answered = self._call.answer(self._direct.steps.write(inference.response()))
        except Exception as error:  # noqa: BLE001 - whatever it is, a client gets an answer
            self._refuse(error)
            return
        if is_answered and self._record is not None:
            self._record.status = "OK"
            self._tell(self._record)

    def _refuse(self, error: Exception) -> None:
        record = self._record
        status = status_of(error, "" if record is None else record.id)
        code = grpc.StatusCode[status.grpc]
        if self._call.refuse(code, status.text, trailing_of(status)) and record is not None:
            record.fail(status, status.grpc)
            self._tell(record)

    def _leave(self) -> None:
        """Cancel a request whose client went."""
        inference = self._inference
        if inference is not None:
            inference.cancel()
        if self._record is not None:
            self._record.fail(CLIENT_GONE, CLIENT_GONE.grpc)
            self._tell(self._record)

    def _tell(self, record: RequestRecord) -> None:
        """Tell of the request, in the loop."""
        recorder = self._direct.steps.recorder
        if recorder is not None:
            self._direct.handover.soon(partial(recorder.end, record, clock.now()))


def trailing_of(status: Status) -> tuple[tuple[str, str], ...]:
    """Return the metadata that go with an error: when to ask again, if that is known."""
    if status.retry_after_s is None:
        return ()
    return (("grpc-retry-pushback-ms", str(max(1, round(status.retry_after_s * 1e3)))),)


def _is_quick(inference: Inference) -> bool:
    """Tell whether an answer is written within microseconds: it is small, and has no texts."""
    if inference.explain is not None:
        return False
    try:
        arrays = inference.future.result(0)
    except Exception:  # noqa: BLE001 - it is told to the client, and is short
        return True
    size = 0
    for array in arrays.values():
        if array.dtype.kind in "OUS":
            return False
        size += array.nbytes
    return size <= _QUICK_BYTES
