"""Starts: checks what a policy wants to start, and starts it. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from coinfer.core.commands import Execution, Run
from coinfer.core.policy import Start
from coinfer.core.progress import Progress
from coinfer.core.request import Request
from coinfer.core.state import State
from coinfer.core.timers import Timers
from coinfer.core.turn import Turn
from coinfer.core.watchdog import Watchdog
from coinfer.errors import PolicyError
from coinfer.machine.span import Span

__all__ = ["Starts"]

_new = tuple.__new__
"""Makes what every request needs: half the price of calling the class of a named tuple."""


class Starts:
    """Turns waiting requests into executions, of which it numbers all."""

    __slots__ = ("_execution_ids", "_hang_min_s", "_state", "_timers", "_turn", "_watchdog")

    def __init__(self, state: State, turn: Turn, timers: Timers, watchdog: Watchdog) -> None:
        self._state = state
        self._turn = turn
        self._timers = timers
        self._watchdog = watchdog
        self._hang_min_s = watchdog.hang_min_s
        self._execution_ids = count()

    def start(self, decision: Start) -> None:
        """Start what a policy decided.

        Raises:
            PolicyError: the decision is not allowed.
        """
        processor, requests, last = decision
        state = self._state
        if len(requests) == 1 and last is None:
            progress = state.requests.get(requests[0].id)
            if progress is not None and progress.waits and progress.lane.routes is None:
                lane = progress.lane
                seconds = lane.seconds.get(processor)
                can_start = processor in state.idle() and processor not in lane.excluded
                if can_start and seconds is not None:
                    state.dequeue(progress)
                    self.launch(processor, requests, (progress,), lane.rest, seconds)
                    return
        self.start_any(decision)

    def start_any(self, decision: Start) -> None:
        """As `start`, but not fast for what is usual: one request, of a model of one unit.

        Raises:
            PolicyError: the decision is not allowed.
        """
        processor, requests, last = decision
        if processor not in self._state.idle():
            raise PolicyError(f"processor {processor!r} is not idle")
        everyone = self._together(requests)
        for progress in everyone:
            if processor in progress.lane.excluded:
                raise PolicyError(f"request {progress.request.id} failed on {processor!r} before")
        lane, batch = everyone[0].lane, sum(request.batch for request in requests)
        span, routes = lane.rest, lane.routes
        if last is not None:
            span = Span(span.first, last)
        elif routes is not None and processor in lane.seconds:
            span = routes.step(span.first, processor).span
        if routes is not None and not routes.leads_on(span):
            raise PolicyError(f"no processor in service can run {lane.model!r} after {span}")
        seconds = self._state.estimates.row(lane.model, span, batch).get(processor)
        if seconds is None:
            raise PolicyError(f"processor {processor!r} cannot run {span} of {lane.model!r}")
        for progress in everyone:
            self._state.dequeue(progress)
        self.launch(processor, requests, everyone, span, seconds)

    def _together(self, requests: Sequence[Request]) -> list[Progress]:
        everyone = [self.waiting(request) for request in requests]
        if not everyone:
            raise PolicyError("an execution needs a request")
        if len({progress.request.id for progress in everyone}) < len(everyone):
            raise PolicyError("an execution takes each request once")
        if len({progress.lane.key[:2] for progress in everyone}) > 1:
            raise PolicyError("one execution takes requests of one model at one position only")
        return everyone

    def waiting(self, request: Request) -> Progress:
        """Return the progress of a request that a policy says waits.

        Raises:
            PolicyError: it does not wait.
        """
        progress = self._state.requests.get(request.id)
        if progress is None or not progress.waits:
            raise PolicyError(f"request {request.id} does not wait")
        return progress

    def launch(
        self,
        processor: str,
        requests: tuple[Request, ...],
        everyone: Sequence[Progress],
        span: Span,
        seconds: float,
    ) -> None:
        """Start an execution that is known to be allowed, of requests that no longer wait.

        Args:
            processor: Where.
            requests: What it serves.
            everyone: Their progress.
            span: What it runs.
            seconds: What it should take, without the change of the processor's model.
        """
        turn, state, model = self._turn, self._state, requests[0].model
        number, now = next(self._execution_ids), turn.now
        swaps = state.swaps
        if swaps.costs:
            seconds += swaps.cost_s(processor, model)
        execution = _new(Execution, (number, model, span, processor, requests, now, seconds))
        for progress in everyone:
            progress.execution = number
            progress.started = True
        state.occupy(execution)
        # The watchdog looks at the oldest execution first: a new one seldom needs to be compared.
        if now + self._hang_min_s < self._timers.watchdog_s:
            self._watchdog.watch(execution)
        turn.commands.append(_new(Run, (execution,)))
