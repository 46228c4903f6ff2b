"""Direct: small inferences are answered without a task of the event loop, and without ASGI.

A request whose body came together with its head is handed to the engine where the parser found its
end, and its answer is written where the engine's is delivered. Everything else goes through ASGI.
Checks, limits and answers are the same, by `InferSteps`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

from coinfer.errors import ClosedError
from coinfer.server.handover import Handover
from coinfer.server.http.infer_steps import InferSteps, Sent, refusal, text_of
from coinfer.server.http.known_answers import KnownAnswers
from coinfer.server.http.known_bodies import KnownBodies
from coinfer.server.http.known_heads import KnownHeads
from coinfer.server.http.reply import Reply, head_of
from coinfer.server.http.sending import JOINED_BYTES, QUICK_BYTES
from coinfer.server.inference import Inference
from coinfer.server.limits import ServerLimits
from coinfer.server.room import Held, Room
from coinfer.server.status import CLIENT_GONE
from coinfer.server.telemetry.record import RequestRecord
from coinfer.server.telemetry.recorder import Recorder

__all__ = ["Direct", "DirectCycle"]

_MOST_BYTES = 16 * 1024
"""Of a body: it is read where it lies. What is longer rarely comes with its head."""

_START, _END, _VERSIONS = b"/v2/models/", b"/infer", "versions"
_NOT_HERE = (b"expect", b"upgrade", b"transfer-encoding", b"content-encoding")

Write = Callable[[bytes | bytearray | memoryview], object]


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
        known_answers: Writes binary answers.
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
        self.known_answers = KnownAnswers()
        self._most_bytes = min(_MOST_BYTES, limits.body_bytes)

    def cycle(
        self, url: bytes, sent: list[tuple[bytes, bytes]], write: Write, end: Callable[[bool], None]
    ) -> DirectCycle | None:
        """Return what answers a request by POST, whose body comes next; None: ASGI is to.

        Args:
            url: As the client sent it.
            sent: Its headers.
            write: Sends bytes to the client.
            end: Called once all are sent, with whether the connection is kept.
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
                    return DirectCycle(self, model, "", headers, write, end)
                case [model, "versions", version, "infer"]:
                    return DirectCycle(self, model, version, headers, write, end)
        except UnicodeDecodeError:
            return None
        return None

    def known(self, data: bytes, write: Write, end: Callable[[bool], None]) -> DirectCycle | None:
        """Return what answers one whole request whose head is known; None: it is to be parsed."""
        found = self.known_heads.find(data)
        if found is None:
            return None
        cycle = DirectCycle(self, found.model, found.version, found.headers, write, end)
        cycle.body = data[found.n_bytes :]
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
        "_end",
        "_headers",
        "_held",
        "_inference",
        "_model",
        "_record",
        "_version",
        "_write",
        "body",
        "disconnected",
        "keep_alive",
        "more_body",
        "response_complete",
    )

    def __init__(
        self,
        direct: Direct,
        model: str,
        version: str,
        headers: Sent,
        write: Write,
        end: Callable[[bool], None],
    ) -> None:
        self.body = b""
        self.more_body = True
        self.disconnected = self.response_complete = False
        self.keep_alive = True
        self._direct = direct
        self._model, self._version = model, version
        self._headers = headers
        self._write, self._end = write, end
        self._held: Held | None = None
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
        elif not self.more_body and self._held is None:
            self._begin()

    def learn(self, data: bytes) -> None:
        """Keep the head of this request, which came in these bytes alone."""
        self._direct.known_heads.learn(data, self._model, self._version, self._headers)

    def give_up(self) -> None:
        """Answer that the server waits no longer."""
        error = ClosedError("the server is stopping and waits no longer")
        if self._inference is not None:
            self._inference.cancel()
        self.keep_alive = False
        self._send(refusal(error, self._record))

    def _begin(self) -> None:
        """Hand the request to the engine."""
        direct, headers, body = self._direct, self._headers, self.body
        steps, recorder = direct.steps, direct.recorder
        record = None
        if recorder is not None:
            parent, state = text_of(headers, b"traceparent"), text_of(headers, b"tracestate")
            record = self._record = recorder.begin("http", "infer", parent, state)
            record.model, record.version = self._model, self._version
        held = self._held = Held(direct.room)
        direct.under_way.add(self)
        try:
            tenant = steps.tenant(headers, record)
            if tenant is not None:
                tenant.take()
            length = steps.header_length(headers)
            held.take(len(body))
            request = direct.known_bodies.parse(self._model, self._version, body, length)
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
        whole: bytes | None = None
        try:
            response = inference.response()
            size = 0
            for output in response.outputs:
                if output.array is not None:
                    size += output.array.nbytes
            if size <= JOINED_BYTES and self.keep_alive and inference.explain is None:
                whole = self._direct.known_answers.whole(inference.request, response)
            if whole is None:
                write = partial(self._direct.steps.write, inference, response, self._headers)
                if size > QUICK_BYTES:
                    loop = asyncio.get_running_loop()
                    loop.run_in_executor(self._direct.aside, write).add_done_callback(self._written)
                    return
                reply = write()
        except Exception as error:  # noqa: BLE001 - whatever it is, a client gets an answer
            whole, reply = None, refusal(error, self._record)
        if whole is None:
            self._send(reply)
        else:
            self._write(whole)
            self._sent(200)

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
        head = head_of(reply, keep_alive=self.keep_alive)
        if sum(map(len, parts)) <= JOINED_BYTES:
            self._write(b"".join((head, *parts)))
        else:
            self._write(head)
            for part in parts:
                self._write(part)
        self._sent(status)

    def _sent(self, status: int) -> None:
        self.response_complete = True
        if self._record is not None:
            self._record.status = status
        self._forget()
        self._end(self.keep_alive)

    def _leave(self) -> None:
        """Cancel a request whose client went."""
        if self._inference is not None:
            self._inference.cancel()
        if self._record is not None:
            self._record.fail(CLIENT_GONE, CLIENT_GONE.http)
        self._forget()

    def _forget(self) -> None:
        direct, held = self._direct, self._held
        self._inference = None  # its callbacks know this cycle: nothing is left for the collector
        direct.under_way.discard(self)
        if held is not None:
            held.give_back()
        record, self._record = self._record, None
        if record is not None and direct.recorder is not None:
            direct.recorder.end(record)
