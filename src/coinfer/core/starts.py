"""Starts: checks what a policy wants to start, completes it, and starts it. Decides nothing.

A policy names a waiting request and a processor. What the execution needs besides is that of the
offer (`coinfer.core.offer`), the same as the policy could see. From a plain lane, where an offer
leaves nothing to settle, a request starts without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from coinfer.core.admission import Admission
from coinfer.core.commands import Execution, Run
from coinfer.core.decision import Start
from coinfer.core.lane import Lane
from coinfer.core.offer import Offer, make_offer
from coinfer.core.progress import Progress
from coinfer.core.request import Request
from coinfer.core.riders import Riders
from coinfer.core.routes import Step
from coinfer.core.state import State
from coinfer.core.timers import Timers
from coinfer.core.variants import best_way, doubt_better
from coinfer.core.watchdog import Watchdog
from coinfer.errors import PolicyError
from coinfer.machine.span import Span

__all__ = ["Starts"]

_new = tuple.__new__
"""Makes what every request needs: half the price of calling the class of a named tuple."""


@dataclass(slots=True, eq=False)
class Starts:
    """Turns waiting requests into executions, of which it numbers all.

    Attributes:
        started: The policy's hook of this name; None if it has only the default.
        has_lent: Whether something was served by a substitute: who comes next in its lane may not
            be.
        has_hidden: Whether a lane was hidden of which nobody may be.
    """

    _state: State
    _timers: Timers
    _admission: Admission
    _watchdog: Watchdog
    _riders: Riders
    started: Callable[..., Any] | None
    has_lent: bool = False
    has_hidden: bool = False
    _execution_ids: Iterator[int] = field(default_factory=count, init=False)

    def start(self, decision: Start) -> None:
        """Start what a policy decided.

        Raises:
            PolicyError: the decision is not allowed.
        """
        processor, requests, last = decision
        state = self._state
        if len(requests) == 1 and last is None:
            progress = state.requests.get(requests[0].id)
            if (
                progress is not None
                and progress.waits
                and progress.request is requests[0]
                and (progress.lane.is_plain or self.is_plain_now(progress.lane))
            ):
                lane = progress.lane
                seconds = lane.seconds.get(processor)
                if seconds is not None and state.is_idle(processor):
                    state.dequeue(progress)
                    self.launch(lane.variant, processor, requests, (progress,), lane.rest, seconds)
                    return
        self.start_any(decision)

    def is_plain_now(self, lane: Lane) -> bool:
        """Tell whether an offer to a lane leaves nothing to settle since nothing else waits."""
        return lane.is_plain_alone and len(self._state.waiting) == 1

    def start_any(self, decision: Start) -> None:
        """The general case of `start`, which is fast for one request of a plain lane.

        Raises:
            PolicyError: the decision is not allowed.
        """
        processor, requests, last = decision
        state = self._state
        if type(requests) is not tuple:
            raise PolicyError(f"an execution takes a tuple of requests, not {requests!r}")
        if not state.is_idle(processor):
            raise PolicyError(f"processor {processor!r} is not idle")
        everyone = self._together(requests)
        lane = everyone[0].lane
        if len(everyone) > 1 or not lane.is_open:
            for progress in everyone:
                if not progress.lane.is_open:
                    self.check_open(progress.lane, progress.request, processor)
        if state.residency.is_tight:
            if self._is_lent(lane, processor, last):
                self._start_lent(lane, processor, requests[0])
                return
            last = self._loaded_last(lane, processor, last)
        if len(requests) == 1:
            first, way = everyone[0].request, None
            step = state.step(lane, processor, last)
            if lane.cheaper:
                way = best_way(state, lane, step, first)
                step = way.step
                if way.lane is not lane:
                    doubt_better(state, lane, first, way.lane)
            step, riders, variant = self._riders.join(lane, step, first, way)
            if riders:
                requests = (*requests, *riders)
                everyone += [state.requests[rider.id] for rider in riders]
        else:  # a batch of the policy's own
            batch = sum(request.batch for request in requests)
            step, variant = state.step(lane, processor, last, batch), lane.variant
            if lane.cheaper:  # as its most urgent request would be served
                first = min(requests, key=_deadline_s)
                way = best_way(state, lane, step, first, batch)
                step, variant = way.step, way.lane.variant
        for progress in everyone:
            state.dequeue(progress)
        self.launch_step(lane, step, requests, everyone, variant)

    def check_open(self, lane: Lane, request: Request, processor: str) -> None:
        """Refuse what may not start on a processor now, though the processor is idle.

        Raises:
            PolicyError: the request failed there before, or is not ready.
        """
        if processor in lane.excluded:
            raise PolicyError(f"request {request.id} failed on {processor!r} before")
        if not lane.may_start(processor, self._state.now):
            ready_s = lane.ready_s[processor]
            raise PolicyError(
                f"request {request.id} is ready for {processor!r} at {ready_s} only; reserve it"
            )

    def _is_lent(self, lane: Lane, processor: str, last: int | None) -> bool:
        """Tell whether only other variants of what waits in a lane are loaded for a processor."""
        is_loaded, step = self._state.residency.is_loaded, self._state.step
        return lane.is_lent and not any(
            is_loaded(lane.variant, step(lane, processor, end).span, processor)
            for end in dict.fromkeys((last, None))
        )

    def _start_lent(self, lane: Lane, processor: str, wanted: Request) -> None:
        """Start a request of a lane by what is loaded in place of its own variant.

        If that may not serve it, the first of the lane starts instead, since requests of a lane are
        interchangeable. If it may not serve that one either, policies do not see the lane any more.
        """
        state = self._state
        step = state.step(lane, processor)
        for first in dict.fromkeys((wanted, lane.head)):
            way = best_way(state, lane, step, first)
            joined, riders, variant = self._riders.join(lane, way.step, first, way)
            if state.residency.may_start(variant, joined.span, processor):
                requests = (first, *riders)
                everyone = [state.requests[request.id] for request in requests]
                for progress in everyone:
                    state.dequeue(progress)
                self.launch_step(lane, joined, requests, everyone, variant)
                self.has_lent = True
                return
        state.hide(lane)
        self.has_hidden = True

    def _loaded_last(self, lane: Lane, processor: str, last: int | None) -> int | None:
        """Return the last unit of what a processor has loaded of a lane: the one named, or its own.

        Raises:
            PolicyError: it has loaded neither.
        """
        for end in dict.fromkeys((last, None)):
            span = self._state.step(lane, processor, end).span
            if self._state.residency.is_loaded(lane.variant, span, processor):
                return end
        raise PolicyError(f"{span} of {lane.model!r} is not loaded for {processor!r}; reserve it")

    def _together(self, requests: Sequence[Request]) -> list[Progress]:
        everyone = [self.waiting(request) for request in requests]
        if len(everyone) == 1:
            return everyone
        if not everyone:
            raise PolicyError("an execution needs a request")
        if len({progress.request.id for progress in everyone}) < len(everyone):
            raise PolicyError("an execution takes each request once")
        lanes = {progress.lane for progress in everyone}
        if len({(lane.model, lane.key.position, lane.variant) for lane in lanes}) > 1:
            raise PolicyError("one execution takes requests of one model at one position only")
        if any(lane.key.alone for lane in lanes):
            raise PolicyError("a request that failed together with others is executed alone")
        return everyone

    def waiting(self, request: Request) -> Progress:
        """Return the progress of a request that a policy says waits.

        Raises:
            PolicyError: it does not wait.
        """
        progress = self._state.requests.get(request.id)
        if progress is None or not progress.waits or progress.request != request:
            raise PolicyError(f"request {request.id} does not wait")
        return progress

    def launch_step(
        self,
        lane: Lane,
        step: Step,
        requests: tuple[Request, ...],
        everyone: Sequence[Progress],
        variant: str = "",
    ) -> None:
        """Start what is offered for a step of a lane, of requests that no longer wait."""
        state = self._state
        held = state.residency
        offer = make_offer(lane, step, held if held.costs else None, requests[1:], variant)
        _, processor, variant, span, _, load_s, seconds, _, _ = offer
        if held.places and variant != lane.variant:
            if variant in state.fusions.by_name:
                self.note_fused(variant, everyone)
            else:  # what is more accurate is missed as much as before
                held.popularity.add(variant, len(everyone))
        self.launch(variant, processor, requests, everyone, span, seconds + load_s, offer)

    def note_fused(self, variant: str, everyone: Sequence[Progress]) -> None:
        """Note that a fused variant serves requests in place of what these ask for."""
        held = self._state.residency
        if held.places:
            for progress in everyone:
                held.popularity.add(variant, instead_of=progress.lane.variant)

    def launch(
        self,
        variant: str,
        processor: str,
        requests: tuple[Request, ...],
        everyone: Sequence[Progress],
        span: Span,
        seconds: float,
        offer: Offer | None = None,
    ) -> None:
        """Start an execution that is known to be allowed, of requests that no longer wait.

        Args:
            variant: What is run.
            processor: Where.
            requests: What it serves.
            everyone: Their progress.
            span: What it runs.
            seconds: What it should take, the load included.
            offer: What it was started from; None if that left nothing to settle.
        """
        state = self._state
        number, now = next(self._execution_ids), state.now
        execution = _new(Execution, (number, variant, span, processor, requests, now, seconds))
        for progress in everyone:
            progress.execution = number
            progress.started = True
        if offer is not None:
            state.offered[number] = offer
        state.occupy(execution)
        # The watchdog looks at the oldest execution first: a new one seldom needs to be compared.
        if now + self._watchdog.hang_min_s < self._timers.watchdog_s:
            self._watchdog.watch(execution)
        state.commands.append(_new(Run, (execution,)))
        if self.started is not None and processor in state.processors:
            try:
                self.started(execution)
            except Exception as error:  # noqa: BLE001 - third-party code; all must be answered
                self._admission.blame_policy(error)


def _deadline_s(request: Request) -> float:
    return request.deadline_s
