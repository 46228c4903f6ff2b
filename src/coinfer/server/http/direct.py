"""Direct: small inferences are answered without a task of the event loop, and without ASGI.

A request whose body came together with its head is handed to the engine where the parser found its
end, and its answer is written where the engine's is delivered. Everything else goes through ASGI.
Checks, limits and answers are the same, by `InferSteps`.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from functools import partial
from typing import Any, Protocol

from coinfer.errors import ClosedError, CoinferError
from coinfer.server.handover import Handover
from coinfer.server.http.infer_steps import InferSteps, refusal, text_of
from coinfer.server.http.known_answers import known_answer, learn_answer
from coinfer.server.http.known_bodies import KnownBodies
from coinfer.server.http.known_heads import Head, KnownHeads
from coinfer.server.http.reply import Reply, head_of
from coinfer.server.http.sending import JOINED_BYTES, QUICK_BYTES
from coinfer.server.inference import Inference
from coinfer.server.limits import ServerLimits
from coinfer.server.room import Room
from coinfer.server.status import CLIENT_GONE
from coinfer.server.telemetry.record import RequestRecord
from coinfer.server.telemetry.recorder import Recorder

__all__ = ["Direct", "DirectCycle"]

_MOST_BYTES = 16 * 1024
"""Of a body: it is read where it lies. What is longer rarely comes with its head."""

_START, _END, _VERSIONS = b"/v2/models/", b"/infer", "versions"
_NOT_HERE = (b"expect", b"upgrade", b"transfer-encoding", b"content-encoding")


class Line(Protocol):
    """The connection that a request came by."""

    transport: Any

    def end(self, *, keep_alive: bool) -> None:
        """Note that the request is answered."""
        ...


class Direct:
    """Answers small inferences.

    Args:
        steps: What is done with an inference.
        limits: What one request may take.
        room: Of all requests over HTTP.
        handover: Says when an inference is answered.
        aside: Does what takes long.
        recorder: Follows each request; None: nobody wants to be told of them.

    Attributes:
        under_way: What waits for its answer.
        known_heads: What needs not be parsed again.
        known_bodies: Reads bodies.
    """

    def __init__(
        self,
        steps: InferSteps,
        limits: ServerLimits,
        room: Room,
        handover: Handover,
        aside: Executor,
        recorder: Recorder | None = None,
    ) -> None:
        self.steps = steps
        self.room = room
        self.handover = handover
        self.aside = aside
        self.recorder = recorder
        self.under_way: set[DirectCycle] = set()
        self.known_heads = KnownHeads()
        self.known_bodies = KnownBodies(steps)
        self._most_bytes = min(_MOST_BYTES, limits.body_bytes)

    def cycle(self, url: bytes, sent: list[tuple[bytes, bytes]], line: Line) -> DirectCycle | None:
        """Return what answers a request by POST, whose body comes next; None: ASGI is to.

        Args:
            url: As the client sent it.
            sent: Its headers.
            line: By which it came.
        """
        if not url.startswith(_START) or not url.endswith(_END) or b"%" in url or b"?" in url:
            return None
        headers = dict(sent)
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or not 0 < int(length[:9]) <= self._most_bytes:
            return None
        for name in _NOT_HERE:
            if name in headers:
                return None
        accepted = headers.get(b"accept-encoding")
        if accepted is not None and (b"gzip" in accepted or b"deflate" in accepted):
            return None
        try:
            match url.decode("ascii").split("/")[3:]:
                case [model, "infer"]:
                    return DirectCycle(self, Head(model, "", headers), line)
                case [model, "versions", version, "infer"]:
                    return DirectCycle(self, Head(model, version, headers), line)
        except UnicodeDecodeError:
            return None
        return None

    def known(self, data: bytes, line: Line) -> DirectCycle | None:
        """Return what answers one whole request whose head is known; None: it is to be parsed."""
        head = self.known_heads.find(data)
        if head is None:
            return None
        cycle = DirectCycle(self, head, line)
        cycle.body = data[head.n_bytes :]
        cycle.more_body = False
        return cycle

    def give_up(self) -> None:
        """Answer what still waits: the server stops and does not wait any longer."""
        for cycle in list(self.under_way):
            cycle.give_up()


class DirectCycle:
    """One request and its answer, as uvicorn's protocol knows it.

    Attributes:
        body: What came of the body.
        more_body: Whether there is more to come.
        disconnected: Whether the client went.
        keep_alive: Whether the connection stays open.
        response_complete: Whether the answer was handed to the transport.
    """

    __slots__ = (
        "_direct",
        "_has_begun",
        "_head",
        "_inference",
        "_line",
        "_n_held",
        "_record",
        "body",
        "disconnected",
        "keep_alive",
        "more_body",
        "response_complete",
    )

    def __init__(self, direct: Direct, head: Head, line: Line) -> None:
        self.body = b""
        self.more_body = self.keep_alive = True
        self.disconnected = self.response_complete = self._has_begun = False
        self._direct = direct
        self._head = head
        self._line = line
        self._n_held = 0
        self._inference: Inference | None = None
        self._record: RequestRecord | None = None

    @property
    def message_event(self) -> DirectCycle:
        """What uvicorn sets when something changed."""
        return self

    def set(self) -> None:
        """See what changed: all of the body is there, or the client went."""
        if self.disconnected:
            self._leave()
        elif not self.more_body and not self._has_begun:
            self.begin()

    def learn(self, data: bytes) -> None:
        """Keep the head of this request, which came in these bytes alone."""
        try:
            header_length = self._direct.steps.header_length(self._head.headers)
        except CoinferError:
            return  # it was refused
        self._direct.known_heads.learn(data, self._head, header_length)

    def give_up(self) -> None:
        """Answer that the server waits no longer."""
        error = ClosedError("the server is stopping and waits no longer")
        if self._inference is not None:
            self._inference.cancel()
        self.keep_alive = False
        self._send(refusal(error, self._record))

    def begin(self) -> None:
        """Hand the request to the engine: all of it is there."""
        direct, body = self._direct, self.body
        model, version, headers, n_head_bytes, _, length = self._head
        self._has_begun = True
        steps, record = direct.steps, None
        if direct.recorder is not None:
            record = self._record = self._recorded(direct.recorder)
        direct.under_way.add(self)
        try:
            tenant = steps.tenant(headers, record)
            if tenant is not None:
                tenant.take()
            if not n_head_bytes:
                length = steps.header_length(headers)
            n_bytes = len(body)
            direct.room.take(n_bytes)
            self._n_held = n_bytes
            request = direct.known_bodies.parse(model, version, body, length)
            self._inference = inference = steps.submit(request, headers, record, tenant)
            self.body = b""
        except Exception as error:  # noqa: BLE001 - whatever it is, a client gets an answer
            self._send(refusal(error, record))
            return
        direct.handover.call(inference, self._answered)

    def _answered(self) -> None:
        """Write the answer."""
        inference = self._inference
        if self.response_complete or self.disconnected or inference is None:
            return
        try:
            whole = known_answer(inference) if self.keep_alive else None
            reply = self._reply(inference) if whole is None else None
        except Exception as error:  # noqa: BLE001 - whatever it is, a client gets an answer
            whole, reply = None, refusal(error, self._record)
        if whole is not None:
            self._line.transport.write(whole)
            self._sent(200)
        elif reply is not None:
            self._send(reply)

    def _reply(self, inference: Inference) -> Reply | None:
        """Write an answer that is not known; None: it is long, and is written aside."""
        response = inference.response()
        write = partial(self._direct.steps.write, inference, response, self._head.headers)
        size = sum(each.array.nbytes for each in response.outputs if each.array is not None)
        if size > QUICK_BYTES:
            loop = asyncio.get_running_loop()
            loop.run_in_executor(self._direct.aside, write).add_done_callback(self._written)
            return None
        reply = write()
        learn_answer(inference, response, reply)
        return reply

    def _written(self, writing: asyncio.Future[Reply]) -> None:
        """Send what was written aside."""
        if self.response_complete or self.disconnected:
            return
        try:
            reply = writing.result()
        except asyncio.CancelledError:  # the threads beside the loop are ended
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, a client gets an answer
            reply = refusal(error, self._record)
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        status, _, parts = reply
        head, write = head_of(reply, keep_alive=self.keep_alive), self._line.transport.write
        if sum(map(len, parts)) <= JOINED_BYTES:
            write(b"".join((head, *parts)))
        else:
            write(head)
            for part in parts:
                write(part)
        self._sent(status)

    def _sent(self, status: int) -> None:
        self.response_complete = True
        if self._record is not None:
            self._record.status = status
        self._forget()
        self._line.end(keep_alive=self.keep_alive)

    def _leave(self) -> None:
        """Cancel a request whose client went."""
        if self._inference is not None:
            self._inference.cancel()
        if self._record is not None:
            self._record.fail(CLIENT_GONE, CLIENT_GONE.http)
        self._forget()

    def _recorded(self, recorder: Recorder) -> RequestRecord:
        head = self._head
        parent, state = (text_of(head.headers, name) for name in (b"traceparent", b"tracestate"))
        record = recorder.begin("http", "infer", parent, state)
        record.model, record.version = head.model, head.version
        return record

    def _forget(self) -> None:
        direct = self._direct
        self._inference = None  # its callbacks know this cycle: nothing is left for the collector
        direct.under_way.discard(self)
        direct.room.held_bytes -= self._n_held
        self._n_held = 0
        record, self._record = self._record, None
        if record is not None and direct.recorder is not None:
            direct.recorder.end(record)
