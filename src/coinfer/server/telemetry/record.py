"""RequestRecord: what there is to tell of one request, from its first byte to its answer."""

from __future__ import annotations

from dataclasses import dataclass

from coinfer.server.status import Status

__all__ = ["RequestRecord"]


@dataclass(slots=True, eq=False, kw_only=True)
class RequestRecord:
    """What there is to tell of one request; filled in while it is answered.

    Texts that a client sent are here as they came. Tokens are not here.

    Attributes:
        transport: `http` or `grpc`.
        call: What is asked for: `infer`, method and path, or the method of gRPC.
        at_ns: When it came, in nanoseconds since 1970.
        began_s: The same moment in the engine's time.
        trace_parent: The `traceparent` that came with it; empty: none did.
        trace_state: The `tracestate` that came with it.
        id: What the client calls it, or a name that was made for it.
        model: Name of the model that is asked for; empty: none is.
        version: The version that answers or, if none does, that was asked for.
        tenant: Who asks; empty: everybody may.
        number: The engine's number of it; -1: the engine did not get it.
        status: Of the answer: a number of HTTP, or a name of gRPC.
        kind: Triton's word for the kind of failure; empty: it went well.
        reason: Why it was refused or failed, in a sentence.
        total_s: Seconds until the answer was handed to the transport.
        arrived_s: When the engine got it, in the engine's time.
        started_s: When it began to run, in the engine's time; None: it did not.
        answered_s: When the engine had its answer; None: it had none.
        trace_id: Of the trace that it belongs to, in hexadecimal digits; empty: to none.
    """

    transport: str
    call: str
    at_ns: int
    began_s: float
    trace_parent: str = ""
    trace_state: str = ""
    id: str = ""
    model: str = ""
    version: str = ""
    tenant: str = ""
    number: int = -1
    status: int | str = ""
    kind: str = ""
    reason: str = ""
    total_s: float = 0.0
    arrived_s: float = 0.0
    started_s: float | None = None
    answered_s: float | None = None
    trace_id: str = ""

    def fail(self, why: Status, status: int | str) -> None:
        """Note that it was refused or failed, and the status that its transport says."""
        self.status, self.kind, self.reason = status, why.reason, why.text

    def note_number(self, number: int) -> None:
        """Note the engine's number of it."""
        self.number = number

    @property
    def queue_s(self) -> float | None:
        """Seconds from when the engine got it until it began to run, or was given up."""
        until_s = self.answered_s if self.started_s is None else self.started_s
        return None if until_s is None else max(0.0, until_s - self.arrived_s)

    @property
    def compute_s(self) -> float | None:
        """Seconds from when it began to run until the engine had the answer."""
        if self.started_s is None or self.answered_s is None:
            return None
        return self.answered_s - self.started_s
