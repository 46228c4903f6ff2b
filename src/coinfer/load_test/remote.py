"""Remote: takes the requests of a load as an engine does, and sends them to a server."""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from coinfer.backends.base import Tensors
from coinfer.core.commands import Reply
from coinfer.core.events import Arrived, Finished
from coinfer.core.request import OnLate, Outcome, Request
from coinfer.errors import ClosedError, ExecutionError
from coinfer.load_test.call import Answered, Call, Sender
from coinfer.metrics.recorder import Recorder
from coinfer.runtime import clock

__all__ = ["Remote"]

_T = TypeVar("_T")
_NO_EXECUTION = -1
"""A server tells nothing of its executions."""


class Remote:
    """A server in the place of an engine. It has an event loop on a thread of its own.

    Latency counts from when a request is due, however late it was sent: a request that must wait
    for another one to go is as late to its user as one that waits in the server.

    Args:
        sender: Sends the calls.

    Attributes:
        recorder: Sees what is asked and answered; set before the first request.
        in_flight: Requests without an answer.
    """

    def __init__(self, sender: Sender) -> None:
        self.recorder: Recorder | None = None
        self.in_flight = 0
        self._sender = sender
        self._calls: dict[int, Call] = {}
        self._kept: list[Tensors] = []
        self._numbers = itertools.count(1)
        self._changing = threading.Lock()
        self._is_closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def prepare(self, feeds: Mapping[str, Sequence[Tensors]]) -> None:
        """Write all requests, as far as that is possible, before the first one is due."""
        for model, each in feeds.items():
            for feed in each:
                if id(feed) not in self._calls:
                    self._calls[id(feed)] = self._sender.prepared(model, feed)
                    self._kept.append(feed)  # an id is unique only as long as its object lives

    def inputs(self, model: str) -> dict[str, str]:
        """Ask which inputs a model takes.

        Raises:
            ConfigurationError: the server does not answer, or has no such model.
        """
        return self._run(self._sender.inputs(model)).result()

    def submit(
        self,
        name: str,
        inputs: Tensors,
        *,
        deadline_s: float | None = None,
        priority: int = 0,
        on_late: OnLate | str = OnLate.RUN,
        due_s: float | None = None,
    ) -> Future[Any]:
        """Send one inference; returns at once. The arguments are those of `Engine.submit`.

        Raises:
            ClosedError: it is closed.
        """
        if self._is_closed:
            raise ClosedError("no more requests are sent")
        now = clock.now()
        due_s = now if due_s is None else due_s
        request = Request(
            id=next(self._numbers),
            model=name,
            arrival_s=due_s,
            deadline_s=math.inf if deadline_s is None else due_s + deadline_s,
            priority=priority,
            on_late=OnLate(on_late),
        )
        with self._changing:
            self.in_flight += 1
            if self.recorder is not None:
                self.recorder.observe(Arrived(request), (), clock.now())
        future: Future[Any] = Future()
        self._loop.call_soon_threadsafe(self._begin, request, self._calls[id(inputs)], future)
        return future

    def close(self) -> None:
        """Give up what is in flight, and close all connections."""
        self._is_closed = True
        self._run(self._end()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _begin(self, request: Request, call: Call, future: Future[Any]) -> None:
        task = self._loop.create_task(self._ask(request, call, future))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, request: Request, call: Call, future: Future[Any]) -> None:
        parameters: dict[str, Any] = {}
        if request.on_late is OnLate.DROP and request.deadline_s < math.inf:
            left_s = request.deadline_s - clock.now()
            parameters["timeout"] = max(1, int(left_s * 1e6))
        answered = Answered(Outcome.CANCELLED, "the load ended")
        try:
            answered = await self._sender.send(call, parameters)
        finally:
            self._note(request, answered)
            if answered.outcome is Outcome.COMPLETED:
                future.set_result(None)
            else:
                future.set_exception(ExecutionError.of(f"model {request.model!r}", answered.reason))

    def _note(self, request: Request, answered: Answered) -> None:
        with self._changing:
            self.in_flight -= 1
            if self.recorder is not None:
                reply = Reply(request, answered.outcome, answered.reason)
                self.recorder.observe(Finished(_NO_EXECUTION, 0.0), (reply,), clock.now())

    async def _end(self) -> None:
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._sender.close()

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> Future[_T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    make: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return make()
