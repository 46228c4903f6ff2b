"""Backlog: how long a request that comes now would wait, so that a hopeless one is refused at once.

The core drops what cannot be in time once it sees that, which may be as late as the deadline. The
backlog counts what waits ahead, each at what a request of its model took of a processor lately, and
divides by how many executions ran at a time. It is an estimate and decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from coinfer.core.commands import Abandon, Command, Execution, Reply, Run
from coinfer.core.events import Arrived, Event, Failed, Finished, ProcessorLost
from coinfer.core.request import Request

__all__ = ["Backlog"]

_WEIGHT = 0.1
"""Of the last execution in what is expected of the next ones."""


class Backlog:
    """An observer of the core that keeps what waits. Its owner calls it; others only read.

    >>> from coinfer.machine.span import Span
    >>> backlog = Backlog()
    >>> first, second = (Request(n, "m", arrival_s=0.0) for n in (1, 2))
    >>> run = Run(Execution(7, "m", Span(0, 0), "cpu", (first,), 0.0, 0.01))
    >>> backlog.observe(Arrived(first), [run], 0.0)
    >>> backlog.observe(Arrived(second), [], 0.0)
    >>> backlog.observe(Finished(7, 0.02), [], 0.02)
    >>> backlog.wait_s(0), backlog.cost_s("m")
    (0.02, 0.02)
    """

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[str, int]] = {}
        self._running: dict[int, Execution] = {}
        self._counts: dict[tuple[str, int], int] = {}
        self._costs: dict[str, float] = {}
        self._parallel = 1.0

    @property
    def n_waiting(self) -> int:
        """Requests that wait; any thread may ask."""
        return len(self._waiting)

    def observe(self, event: Event, commands: Sequence[Command], now: float) -> None:  # noqa: ARG002
        """Note a step of the core."""
        kind = type(event)
        if isinstance(event, Arrived):
            request = event.request
            if len(commands) == 1 and type(commands[0]) is Run:
                execution = commands[0].execution
                if len(execution.requests) == 1 and execution.requests[0] is request:
                    self._note_run(execution)  # it started at once: most do where little waits
                    return
            self._wait(request)
        elif isinstance(event, Finished):
            self._ended(event.execution_id, event.service_s)
        elif kind is Failed:
            self._running.pop(event.execution_id, None)  # type: ignore[union-attr]
        elif kind is ProcessorLost:
            lost = event.processor  # type: ignore[union-attr]
            self._running = {n: e for n, e in self._running.items() if e.processor != lost}
        waiting = self._waiting
        for command in commands:
            of = type(command)
            if of is Run:
                execution = command.execution  # type: ignore[union-attr]
                for request in execution.requests:
                    if request.id in waiting:
                        self._leave(request)
                self._note_run(execution)
            elif of is Reply:
                if command.request.id in waiting:  # type: ignore[union-attr]
                    self._leave(command.request)  # type: ignore[union-attr]
            elif of is Abandon:
                self._running.pop(command.execution.id, None)  # type: ignore[union-attr]

    def cost_s(self, model: str) -> float:
        """Return what a request of a model took of a processor lately; 0: none was seen yet."""
        return self._costs.get(model, 0.0)

    def forget(self, model: str) -> None:
        """Forget what a model took: it is unloaded."""
        self._costs.pop(model, None)

    def wait_s(self, priority: int) -> float:
        """Return how long what waits would keep a request of a priority from starting."""
        ahead_s = 0.0
        for (model, level), count in list(self._counts.items()):
            if level >= priority:
                ahead_s += count * self._costs.get(model, 0.0)
        return ahead_s / self._parallel

    def _wait(self, request: Request) -> None:
        self._waiting[request.id] = key = (request.model, request.priority)
        self._counts[key] = self._counts.get(key, 0) + 1

    def _leave(self, request: Request) -> None:
        key = self._waiting.pop(request.id)
        left = self._counts[key] - 1
        if left:
            self._counts[key] = left
        else:
            del self._counts[key]

    def _note_run(self, execution: Execution) -> None:
        self._running[execution.id] = execution
        if self._waiting:
            self._parallel += _WEIGHT * (len(self._running) - self._parallel)

    def _ended(self, number: int, service_s: float) -> None:
        execution = self._running.pop(number, None)
        if execution is None:
            return
        requests = execution.requests
        if len(requests) == 1:  # nearly always
            models: Collection[str] = (requests[0].model,)
        else:
            models = {request.model for request in requests}
            service_s /= len(requests)
        costs = self._costs
        for model in models:
            old = costs.get(model)
            costs[model] = service_s if old is None else old + _WEIGHT * (service_s - old)
