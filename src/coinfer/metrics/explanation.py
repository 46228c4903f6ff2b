"""Explanation: why each execution of one request went to its processor.

An explainer watches the core's decisions and makes none. For every execution of the request it
keeps what each processor could have done at that moment. The estimates are the core's own. It also
keeps where the time of the request went.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coinfer.core.commands import Command, Execution, Reply, Run
from coinfer.core.events import Arrived, Event, Failed, Finished, ProcessorLost
from coinfer.core.lane import Lane
from coinfer.core.request import Outcome, Request
from coinfer.core.routes import Step
from coinfer.core.variants import MARGIN
from coinfer.core.view import View
from coinfer.machine.span import Span
from coinfer.units import format_seconds

__all__ = ["SLOWEST", "Alternative", "Choice", "Explainer", "Explanation", "Moment"]

SLOWEST = "slowest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """What a processor could have done for the request.

    Attributes:
        processor: Its name.
        wait_s: Seconds until it should be free; 0 if it was.
        span: The units that it would run next; None if it cannot go on with the request.
        span_s: Expected seconds of that span.
        finish_s: Expected seconds until the whole request would be done, with this processor next
            and nothing in the way afterwards; infinite if it cannot.
        reason: Why it cannot; empty if it can.
    """

    processor: str
    wait_s: float = 0.0
    span: Span | None = None
    span_s: float = math.inf
    finish_s: float = math.inf
    reason: str = ""


@dataclass(slots=True, kw_only=True)
class Choice:
    """One execution of the request, and what else could have been.

    Attributes:
        at_s: The moment, in the driver's seconds.
        variant: What it ran; the original variant has the name of the model.
        why_variant: Why that one, where there was a choice; else empty.
        span: The units that it ran.
        processor: Where.
        expected_s: Seconds that it should take.
        together: Requests in the execution.
        alternatives: All processors with what they would have done of this variant, the soonest
            expected end first.
        took_s: Seconds that it took on the processor; None if it did not end well.
        failure: Why it did not end well.
        beside: The units that started at the same moment on another processor, if it forked.
        handed_over_s: When its processor's worker was given it, in the driver's seconds; None if
            that is not known, as the next two.
        started_s: When the worker began to run it.
        ended_s: When that was over.
    """

    at_s: float
    variant: str
    why_variant: str
    span: Span
    processor: str
    expected_s: float
    together: int
    alternatives: tuple[Alternative, ...]
    took_s: float | None = None
    failure: str = ""
    beside: Span | None = None
    handed_over_s: float | None = None
    started_s: float | None = None
    ended_s: float | None = None

    def moments(self) -> list[Moment]:
        """Return what is known of when what happened."""
        known = (
            (self.at_s, "decided"),
            (self.handed_over_s, "handed over"),
            (self.started_s, "started"),
            (self.ended_s, "failed" if self.failure else "ended"),
        )
        return [Moment(at_s, what, self.span) for at_s, what in known if at_s is not None]


class Moment(NamedTuple):
    """Something that happened to a request.

    Attributes:
        at_s: When, in the driver's seconds.
        what: `due`, `seen by the core`, `decided`, `handed over`, `started`, `ended`, `failed` or
            `answered`.
        span: Which units it was about; None: the request.
    """

    at_s: float
    what: str
    span: Span | None = None


@dataclass(slots=True, kw_only=True)
class Explanation:
    """The way of one request.

    Attributes:
        request: The request.
        choices: Its executions, in order.
        outcome: How it was answered; None: not yet.
        answered_s: When, in the driver's seconds: the caller's moment, or that of the core's
            decision where only this is known.
        seen_s: When the core learnt of it; None if it was not watched then.
    """

    request: Request
    choices: list[Choice] = field(default_factory=list)
    outcome: Outcome | None = None
    answered_s: float = math.inf
    seen_s: float | None = None

    @property
    def latency_s(self) -> float:
        """Seconds from the moment it was due to the answer."""
        return self.answered_s - self.request.arrival_s

    def moments(self) -> list[Moment]:
        """Return what happened when, in that order: what lies between two is all of its time."""
        found = [Moment(self.request.arrival_s, "due")]
        if self.seen_s is not None:
            found.append(Moment(self.seen_s, "seen by the core"))
        for choice in self.choices:
            found += choice.moments()
        found.append(Moment(self.answered_s, "answered"))
        return sorted(found, key=lambda moment: moment.at_s)


class Explainer:
    """Keeps the way of one request of a run: an observer, and a timekeeper.

    Args:
        wanted: The number of a request; the name of a model, for its slowest request; `slowest`,
            for the slowest of all; or what tells whether a request is one of those, of which the
            slowest is kept.

    Attributes:
        found: The request that was looked for, as far as it has been seen.
    """

    def __init__(self, wanted: str | Callable[[Request], bool] = SLOWEST) -> None:
        self.found: Explanation | None = None
        self._wanted = wanted
        self._view: View | None = None
        self._since_s = -math.inf
        self._slowest_s = -math.inf
        self._open: dict[int, Explanation] = {}
        self._running: dict[int, tuple[Execution, list[Choice]]] = {}
        self._failed: dict[int, set[str]] = {}

    def watch(self, view: View, since_s: float = -math.inf) -> None:
        """Look at decisions through the core's view; leave out what is due before a moment."""
        self._view, self._since_s = view, since_s

    def observe(self, event: Event, commands: Sequence[Command], now: float) -> None:
        """Note a step of the core."""
        match event:
            case Arrived(request):
                if self._is_candidate(request):
                    self._open[request.id] = Explanation(request=request, seen_s=now)
            case Finished(number, service_s):
                for choice in self._running.pop(number, (None, []))[1]:
                    choice.took_s = service_s
            case Failed(number, reason):
                self._fail(number, reason)
            case ProcessorLost(processor, reason):
                lost = [n for n, (e, _) in self._running.items() if e.processor == processor]
                for number in lost:
                    self._fail(number, reason)
            case _:
                pass
        started = [c.execution for c in commands if type(c) is Run]
        for at, execution in enumerate(started):
            self._start(execution, started[at + 1 :], now)
        if len(started) > 1:
            self._note_forks(started)
        for command in commands:
            if type(command) is Reply:
                self._answer(command, now)

    def handed_over(self, execution_id: int, at_s: float) -> None:
        """Note that an execution is given to its processor's worker."""
        for choice in self._running.get(execution_id, (None, []))[1]:
            choice.handed_over_s = at_s

    def ended(self, execution_id: int, at_s: float, service_s: float | None) -> None:
        """Note that an execution ended, and how long it ran; None if it failed."""
        for choice in self._running.get(execution_id, (None, []))[1]:
            choice.ended_s = at_s
            choice.started_s = None if service_s is None else at_s - service_s

    def answered(self, request_id: int, at_s: float) -> None:
        """Note that the caller gets the answer."""
        way = self.found
        if way is not None and way.request.id == request_id:
            way.answered_s = at_s

    def _start(self, execution: Execution, later: Sequence[Execution], now: float) -> None:
        choices = []
        for request in execution.requests:
            if not self._is_candidate(request):
                continue
            choice = Choice(
                at_s=now,
                variant=execution.variant,
                why_variant=self._why_variant(execution, request, now),
                span=execution.span,
                processor=execution.processor,
                expected_s=execution.expected_s,
                together=len(execution.requests),
                alternatives=self._alternatives(execution, request, later, now),
            )
            way = self._open.setdefault(request.id, Explanation(request=request))
            way.choices.append(choice)
            choices.append(choice)
        if choices:
            self._running[execution.id] = (execution, choices)

    def _note_forks(self, started: Sequence[Execution]) -> None:
        """Note which executions of one request started together."""
        for execution in started:
            for other in started:
                if other is not execution and other.requests == execution.requests:
                    for choice in self._running.get(execution.id, (execution, []))[1]:
                        choice.beside = other.span

    def _is_candidate(self, request: Request) -> bool:
        if not isinstance(self._wanted, str):
            return self._wanted(request)
        if self._wanted.isdecimal():
            return request.id == int(self._wanted)
        return request.arrival_s >= self._since_s and self._wanted in (SLOWEST, request.model)

    def _alternatives(
        self, execution: Execution, request: Request, later: Sequence[Execution], now: float
    ) -> tuple[Alternative, ...]:
        """What all processors could have done before this execution and those after it started."""
        view = self._view
        if view is None:
            return ()
        unseen = {execution.id, *(each.id for each in later)}
        free_at: dict[str, float] = {}
        for running in view.running():
            if running.id not in unseen:
                end_s = max(now, running.expected_end_s)
                units = view.all_processors[running.processor].units
                free_at.update(dict.fromkeys(units, end_s))
        ways = _ways(view, request)
        lane = ways.get(execution.variant, next(iter(ways.values())))
        failed = self._failed.get(request.id, set())
        found = []
        for name, processor in view.all_processors.items():
            wait_s = max([free_at.get(unit, now) for unit in processor.units]) - now
            if name in failed:
                found.append(Alternative(processor=name, reason="it failed there before"))
            elif name not in view.processors:
                found.append(Alternative(processor=name, reason="out of service"))
            else:
                found.append(_expected(lane, execution.span.first, name, wait_s))
        return tuple(sorted(found, key=lambda each: each.finish_s))

    def _why_variant(self, execution: Execution, request: Request, now: float) -> str:
        """Say why an execution ran the variant that it did, by the rule of `core.variants`."""
        if self._view is None:
            return ""
        ways, variant = _ways(self._view, request), execution.variant
        shown = next(iter(ways.values()))
        if variant not in ways:
            return "it answers requests of several models in one run"
        if len(ways) == 1:
            known = variant != request.model
            return "no more accurate one is used, or can run" if known else ""
        if execution.span.first:
            return "chosen at the first unit"
        if execution.processor not in self._view.all_processors:
            return "it preempted others; a cheaper one does so only if that alone is in time"
        needed_s = (1 + MARGIN) * shown.seconds.get(execution.processor, math.inf)
        left_s = request.deadline_s - now
        if variant != shown.variant and needed_s <= left_s:
            together = len(execution.requests) > 1
            return "a more urgent one rides along" if together else f"{shown.variant} is not loaded"
        if left_s == math.inf:
            return "the request has no deadline"
        left = f"{format_seconds(left_s)} were left" if left_s > 0 else "its deadline had passed"
        text = f"{shown.variant} needs {format_seconds(needed_s)}, a quarter of it to spare; {left}"
        if needed_s == math.inf:
            text = f"{shown.variant} does not run there"
        if variant == shown.variant and needed_s > left_s:
            text += "; no other is done sooner there"
        return text

    def _fail(self, number: int, reason: str) -> None:
        execution, choices = self._running.pop(number, (None, []))
        for choice in choices:
            choice.failure = reason
        if execution is not None:
            for request in execution.requests:
                self._failed.setdefault(request.id, set()).add(execution.processor)

    def _answer(self, reply: Reply, now: float) -> None:
        self._failed.pop(reply.request.id, None)
        way = self._open.pop(reply.request.id, None)
        if way is None or not way.choices:
            return
        way.outcome, way.answered_s = reply.outcome, now
        if way.latency_s > self._slowest_s:
            self.found, self._slowest_s = way, way.latency_s


def _ways(view: View, request: Request) -> dict[str, Lane]:
    """Return what the variants take that may serve a fresh request, that of policies first."""
    entrance = view.entrance(request.model, request.batch, request.shape)
    return {way.variant: way for way in (entrance, *entrance.cheaper)}


def _expected(lane: Lane, position: int, name: str, wait_s: float) -> Alternative:
    """What a processor in service could do from a boundary on."""
    routes = lane.routes
    seconds: Mapping[str, float] = lane.seconds if routes is None else routes.seconds(position)
    rest_s = seconds.get(name)
    if rest_s is None:
        return Alternative(processor=name, wait_s=wait_s, reason="it does not run what comes next")
    step = Step(lane.rest, name, rest_s) if routes is None else routes.step(position, name)
    return Alternative(
        processor=name,
        wait_s=wait_s,
        span=step.span,
        span_s=step.seconds,
        finish_s=wait_s + rest_s,
    )
