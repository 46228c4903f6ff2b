"""ReleasedWork: what of tenants' requests the engine has, and what they take of its processors.

It finds the requests again by the moment from which their latency counts, which is another one for
each. The stages of an ensemble share that of the request from outside, so what they take is that
request's.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from threading import Lock

from coinfer.core.commands import Abandon, Command, Execution, Run
from coinfer.core.events import Event, Failed, Finished, ProcessorLost
from coinfer.machine.processor import Processor
from coinfer.server.tenant_request import TenantRequest

__all__ = ["ReleasedWork"]

_WEIGHT = 0.1
"""Of the last request in what is expected of the next ones."""

_FORGETS = 0.98
"""Of the longest run, with each that is shorter."""

_RUNS_AHEAD = 2.0
_LEAST_AHEAD_S = 0.002
_UNKNOWN_S = 0.001


class ReleasedWork:
    """An observer of the core. All but `observe` is called while the lock is held.

    Args:
        processors: Those of the engine.
        lock: Guards it.
        most_waiting: Requests that may wait in the engine; None: any number.

    Attributes:
        n_unanswered: Requests of tenants that the engine has.
        n_waiting: Those of them that no processor has begun with.
    """

    def __init__(
        self, processors: Iterable[Processor], lock: Lock, most_waiting: int | None = None
    ) -> None:
        self._lock = lock
        self._most_waiting = math.inf if most_waiting is None else max(1, most_waiting)
        processors = list(processors)
        self._units = {each.name: each.units for each in processors}
        self._express = {each.name for each in processors if each.overlays}
        self._requests: dict[float, TenantRequest] = {}
        self._running: dict[int, Execution] = {}
        self._costs: dict[str, float] = {}
        self._ran_on: dict[str, set[str]] = defaultdict(set)
        self._waiting: Counter[str] = Counter()
        self._longest_s = 0.0
        self.n_waiting = 0

    @property
    def n_unanswered(self) -> int:
        """Requests of tenants that the engine has."""
        return len(self._requests)

    @property
    def is_full(self) -> bool:
        """Whether as many requests wait in the engine as may."""
        return self.n_waiting >= self._most_waiting

    @property
    def parallel(self) -> int:
        """How many executions run now; at least 1."""
        return max(1, len(self._running))

    def cost_s(self, model: str) -> float:
        """Return what a request to a model took of processors lately, in seconds."""
        found = self._costs.get(model)
        if found is not None:
            return found
        return max(self._costs.values(), default=_UNKNOWN_S)

    def has_room(self) -> bool:
        """Tell whether so little waits in the engine that its processors might run out of it."""
        if not self.n_waiting:
            return True
        if self.is_full:
            return False
        waiting_s = sum(count * self.cost_s(model) for model, count in self._waiting.items())
        ahead_s = max(_LEAST_AHEAD_S, _RUNS_AHEAD * self._longest_s)
        return waiting_s < ahead_s * self.parallel

    def can_start(self, model: str) -> bool:
        """Tell whether a model might start at once, though other models' requests wait."""
        if self._waiting[model]:
            return False
        return model not in self._ran_on or bool(self._idle(model))

    def _idle(self, model: str) -> frozenset[str]:
        """Return the idle processors on which a model ran; none that runs on top of others."""
        busy = {execution.processor for execution in self._running.values()}
        taken = self._occupied(busy)
        known = self._ran_on.get(model, set()) - busy - self._express
        return frozenset(name for name in known if not self._units[name] & taken)

    def are_rivals(self, one: str, other: str) -> bool:
        """Tell whether two models may wait for the same processor, as far as they ran before."""
        if one == other or one not in self._ran_on or other not in self._ran_on:
            return True
        return not self._occupied(self._ran_on[one]).isdisjoint(self._occupied(self._ran_on[other]))

    def add(self, request: TenantRequest) -> None:
        """Note that the engine is about to get a request; may change its `due_s` a little."""
        while request.due_s in self._requests:
            request.due_s = math.nextafter(request.due_s, math.inf)
        if request.is_beside:
            request.idle_on = self._idle(request.model)
        self._requests[request.due_s] = request
        self._waiting[request.model] += 1
        self.n_waiting += 1

    def end(self, request: TenantRequest, *, is_completed: bool) -> None:
        """Note that a request is answered, or that the engine did not take it."""
        self._requests.pop(request.due_s, None)
        self._begun(request)
        if is_completed and request.model in self._ran_on:  # else it is forgotten meanwhile
            old = self._costs.get(request.model)
            new = request.spent_s
            self._costs[request.model] = new if old is None else old + _WEIGHT * (new - old)

    def forget(self, model: str) -> None:
        """Forget what was learned of a model that is not there any more."""
        self._costs.pop(model, None)
        self._ran_on.pop(model, None)

    def observe(self, event: Event, commands: Sequence[Command]) -> bool:
        """Note a step of the core; True if a processor began with a request of a tenant."""
        kind, has_begun = type(event), False
        with self._lock:
            if isinstance(event, Finished):
                self._ended(event.execution_id, event.service_s)
            elif kind is Failed:
                self._ended(event.execution_id)  # type: ignore[union-attr]
            elif kind is ProcessorLost:
                for number, execution in list(self._running.items()):
                    if execution.processor == event.processor:  # type: ignore[union-attr]
                        self._ended(number)
            for command in commands:
                if type(command) is Run:
                    execution = command.execution
                    self._running[execution.id] = execution
                    for each in execution.requests:
                        request = self._requests.get(each.arrival_s)
                        if request is not None:
                            has_begun = True
                            self._place(request, execution.processor)
                            self._begun(request)
                elif type(command) is Abandon:
                    self._ended(command.execution.id)
        return has_begun

    def _occupied(self, processors: Iterable[str]) -> frozenset[str]:
        """Return the units that processors occupy."""
        return frozenset[str]().union(*(self._units.get(name, frozenset()) for name in processors))

    def _place(self, request: TenantRequest, processor: str) -> None:
        """Note where a request runs. What its policy left idle is not taken for a place again."""
        ran_on = self._ran_on[request.model]
        if request.is_beside and not request.has_started and processor not in request.idle_on:
            request.is_misplaced = True
            ran_on -= request.idle_on
        ran_on.add(processor)

    def _begun(self, request: TenantRequest) -> None:
        if not request.has_started:
            request.has_started = True
            self._waiting[request.model] -= 1
            if not self._waiting[request.model]:
                del self._waiting[request.model]
            self.n_waiting -= 1

    def _ended(self, number: int, service_s: float | None = None) -> None:
        """Note the end of an execution; of one that failed, what it was to take."""
        execution = self._running.pop(number, None)
        if execution is None:
            return
        seconds = execution.expected_s if service_s is None else service_s
        self._longest_s = max(seconds, self._longest_s * _FORGETS)
        samples = sum(each.batch for each in execution.requests)
        for each in execution.requests:
            request = self._requests.get(each.arrival_s)
            if request is not None:
                request.spent_s += seconds * each.batch / samples
