"""Infer steps: what is done with an inference over HTTP, but for waiting for bytes and answers."""

from __future__ import annotations

from collections.abc import Mapping

from coinfer.errors import ConfigurationError, InputError
from coinfer.server.access import Access, Tenant
from coinfer.server.http.infer_answer import write_infer
from coinfer.server.http.infer_body import parse_infer
from coinfer.server.http.reply import Headers, Reply, of_status
from coinfer.server.inference import EXPLAIN, Inference
from coinfer.server.limits import ServerLimits
from coinfer.server.raw_tensors import Buffer
from coinfer.server.request import InferRequest, InferResponse
from coinfer.server.service import Service
from coinfer.server.status import status_of
from coinfer.server.telemetry.record import RequestRecord
from coinfer.units import parse_seconds

__all__ = ["InferSteps", "Sent", "refusal", "text_of", "whole_of"]

Sent = Mapping[bytes, bytes]
"""The headers of a request; their names are in small letters."""

_LENGTH = b"inference-header-content-length"


class InferSteps:
    """The steps of an inference, in their order. None of them waits.

    Args:
        service: What answers.
        limits: What one request may take.
        access: Who may ask.
    """

    def __init__(self, service: Service, limits: ServerLimits, access: Access) -> None:
        self._service = service
        self._limits = limits
        self._access = access

    def tenant(self, headers: Sent, record: RequestRecord | None) -> Tenant | None:
        """Find out who asks.

        Raises:
            UnauthenticatedError: nobody who may.
        """
        if self._access.is_open:
            return None
        tenant = self._access.check(text_of(headers, b"authorization"))
        if record is not None and tenant is not None:
            record.tenant = tenant.name
        return tenant

    def header_length(self, headers: Sent) -> int | None:
        """Return how many bytes of the body are JSON; None: all.

        Raises:
            InputError: the header is no number.
        """
        return whole_of(headers, _LENGTH)

    def parse(
        self, model: str, version: str, body: Buffer, header_length: int | None
    ) -> InferRequest:
        """Read the body.

        Raises:
            CoinferError: as of `parse_infer`.
        """
        memory = self._service.shared_memory
        return parse_infer(model, version, body, header_length, self._limits, memory)

    def submit(
        self,
        request: InferRequest,
        headers: Sent,
        record: RequestRecord | None,
        tenant: Tenant | None,
    ) -> Inference:
        """Hand the request to the engine.

        Raises:
            CoinferError: it is refused.
        """
        if record is not None and request.id:
            record.id = request.id
        if b"x-coinfer-explain" in headers:
            request = request._replace(parameters={**request.parameters, EXPLAIN: True})
        deadline = headers.get(b"x-coinfer-deadline")
        deadline_s = None if deadline is None else _deadline_s(deadline)
        name = "" if tenant is None else tenant.name
        inference = self._service.infer(request, deadline_s=deadline_s, tenant=name)
        if record is not None:
            record.version = inference.served.version
            inference.note_number(record.note_number)
        return inference

    def write(self, inference: Inference, response: InferResponse, headers: Sent) -> Reply:
        """Write the answer.

        Raises:
            InputError: an output is wanted in JSON that has no form there.
        """
        said: Headers = ()
        if b"x-coinfer-explain" in headers:
            said = ((b"x-coinfer-explain", str(response.parameters[EXPLAIN]).encode()),)
        return write_infer(inference.request, response, said)


def refusal(error: BaseException, record: RequestRecord | None) -> Reply:
    """Make the reply that says an error, and note it."""
    status = status_of(error, "" if record is None else record.id)
    if record is not None:
        record.fail(status, status.http)
    return of_status(status)


def text_of(headers: Sent, name: bytes) -> str:
    """Return a header; empty: it was not sent."""
    return headers.get(name, b"").decode("latin-1")


def whole_of(headers: Sent, name: bytes) -> int | None:
    """Return the number in a header; None: it was not sent.

    Raises:
        InputError: it is no whole number from 0.
    """
    text = headers.get(name)
    if text is None:
        return None
    if not text.isdigit() or len(text) > 15:
        raise InputError(f"header {name.decode()} must be a whole number from 0")
    return int(text)


def _deadline_s(text: bytes) -> float:
    try:
        seconds = parse_seconds(text.decode("latin-1"))
    except (ConfigurationError, ValueError) as error:
        raise InputError(f"header X-Coinfer-Deadline: {error}") from None
    if not seconds > 0:
        raise InputError("header X-Coinfer-Deadline must be more than 0 s")
    return seconds
