"""Infer steps: what is done with an inference over gRPC, but for waiting for messages and answers.

Any thread may take them.
"""

from __future__ import annotations

from collections.abc import Sequence

from coinfer.server.access import Access, Tenant
from coinfer.server.grpc.known_answers import KnownAnswers
from coinfer.server.grpc.known_messages import KnownMessages
from coinfer.server.inference import EXPLAIN, Inference
from coinfer.server.limits import ServerLimits
from coinfer.server.request import InferResponse
from coinfer.server.service import Service
from coinfer.server.telemetry.record import RequestRecord
from coinfer.server.telemetry.recorder import Recorder

__all__ = ["InferSteps", "Metadata"]

Metadata = Sequence[tuple[str, str | bytes]]
"""What a client sends beside its messages."""

_FAR_S = 1e9


class InferSteps:
    """The steps of an inference, in their order. None of them waits.

    Args:
        service: What answers.
        limits: What one request may take.
        access: Who may ask.
        recorder: Follows each request; None: nobody wants to be told of them.
    """

    def __init__(
        self,
        service: Service,
        limits: ServerLimits,
        access: Access,
        recorder: Recorder | None = None,
    ) -> None:
        self.recorder = recorder
        self._service = service
        self._access = access
        self._known_messages = KnownMessages(limits)
        self._known_answers = KnownAnswers()

    def begun(self, method: str, metadata: Metadata) -> RequestRecord | None:
        """Note that a request comes; None: nobody wants to be told of it."""
        if self.recorder is None:
            return None
        sent = dict(metadata)
        parent, state = (str(sent.get(name, "")) for name in ("traceparent", "tracestate"))
        return self.recorder.begin("grpc", method, parent, state)

    def tenant(self, metadata: Metadata, record: RequestRecord | None) -> Tenant | None:
        """Find out who calls.

        Raises:
            UnauthenticatedError: nobody who may.
        """
        if self._access.is_open:
            return None
        tenant = self._access.check(str(dict(metadata).get("authorization", "")))
        if tenant is not None and record is not None:
            record.tenant = tenant.name
        return tenant

    def submit(
        self,
        data: bytes,
        metadata: Metadata,
        deadline_s: float | None,
        record: RequestRecord | None,
        tenant: Tenant | None,
    ) -> Inference:
        """Read a request and hand it to the engine.

        Args:
            data: A serialized `ModelInferRequest`.
            metadata: What came beside it.
            deadline_s: Seconds that the call has left; None or very many: any.
            record: Of the request.
            tenant: Who asks.

        Raises:
            CoinferError: it is refused.
        """
        request = self._known_messages.parse(data, self._service.shared_memory)
        if record is not None:
            record.model, record.version = request.model, request.version
            record.id = request.id or record.id
        for name, _ in metadata:
            if name == "x-coinfer-explain":
                request = request._replace(parameters={**request.parameters, EXPLAIN: True})
        if deadline_s is not None and deadline_s > _FAR_S:
            deadline_s = None  # a client that gives none may say so by a time far away
        inference = self._service.infer(
            request, deadline_s=deadline_s, tenant="" if tenant is None else tenant.name
        )
        if record is not None:
            record.version = inference.served.version
            inference.note_number(record.note_number)
        return inference

    def write(self, response: InferResponse, *, is_final: bool = False) -> bytes:
        """Write an answer as a serialized `ModelInferResponse`; see `write_infer`."""
        return self._known_answers.write(response, is_final=is_final)
