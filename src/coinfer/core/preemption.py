"""Preemption: which urgent requests start on an express processor, on top of what is less urgent.

A rule of the dispatcher that no policy repeats; it applies to what still waits after the policy's
decisions. Urgent is what has a deadline or a higher priority than others. A request is more urgent
than another if its priority is higher, or equal and its deadline earlier. The most urgent request
goes first, on top of what is least urgent:
 - at once, where what runs there has no deadline or a lower priority, and where no other urgent
   model could be late by it: what runs on an express processor cannot be preempted itself, so it
   must be done within the time that each of the others has to spare;
 - else only if, by the estimates, it would finish too late on every ordinary processor. Too late is
   less than `MARGIN` of its relative deadline before the deadline.
Brief ones take turns on one core, while there is time: to wake the thread of another core and to
hand the interpreter to and fro takes longer than such a run. So nothing is held up for those that
the policy lets wait for their turn beside an idle core. They share a run where that pays
(`coinfer.core.shared_preemption`).
What runs for less than `SHORT_S` is waited for: threads of one priority that share a core take
turns of that length. So where all runs are short, threads never lose their priority, beside other
programs neither. What should have ended long ago counts as long. On a device with priorities of its
own nothing is waited for.
Nothing is started in vain: it finishes in time there, or it may run late and nobody misses a
deadline by it; and nothing more urgent is held up.

The estimates of waiting know what runs and what of the requests looked at goes before, not what the
policy has in mind. So each request is looked at again at the last moment at which an idle processor
would still do.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from coinfer.core.commands import Execution
from coinfer.core.express import ExpressProcessors
from coinfer.core.lane import Lane
from coinfer.core.progress import Progress
from coinfer.core.request import OnLate, Request
from coinfer.core.routes import Step
from coinfer.core.shared_preemption import shared_run
from coinfer.core.state import State
from coinfer.core.variants import Way
from coinfer.core.view import View
from coinfer.machine.memories import lowers_threads

__all__ = ["BRIEF_S", "MARGIN", "SHORT_S", "OnTop", "Preemption", "stays_on_top"]

MARGIN = 0.25
"""Share of its relative deadline by which a request that waits is to finish before the deadline."""

SHORT_S = 0.003
"""Seconds of a run below which it is not preempted: a time slice of Linux's scheduler."""

BRIEF_S = 0.0005
"""Seconds of a run below which another thread is not worth waking for it."""

_OVERDUE_S = 10 * SHORT_S

_LOOKED_AT = 8
"""Requests looked at after one event: the most urgent ones."""

_FEW = 64

_Urgency: TypeAlias = tuple[float, float]
"""How urgent something is: less its priority, then its deadline; the smallest is most urgent."""

_Worth: TypeAlias = tuple[_Urgency, float]
"""How urgent what would be held up is, and how little it was held up before, coarsely."""

_Below: TypeAlias = tuple[str, _Worth]
"""An express processor, and what it would hold up."""

_NOTHING: _Urgency = (math.inf, math.inf)
"""What runs where nothing does."""

_IDLE: _Worth = (_NOTHING, 1.0)
"""It is spared less than whatever was held up before."""


class OnTop(NamedTuple):
    """What is to start on an express processor.

    Attributes:
        everyone: The progress of those that it serves, the most urgent one first.
        variant: What is run.
        step: Its step.
    """

    everyone: tuple[Progress, ...]
    variant: str
    step: Step


def stays_on_top(execution: Execution) -> bool:
    """Tell whether an execution need not give way: it is urgent, and too short to be preempted."""
    first = execution.requests[0]
    return execution.expected_s < SHORT_S and (first.deadline_s < math.inf or first.priority > 0)


def _urgency(request: Request) -> _Urgency:
    return -float(request.priority), request.deadline_s


def _limit_s(request: Request) -> float:
    """Return the moment after which a request that waits counts as late; infinite: never."""
    due_s = request.deadline_s
    return due_s if due_s == math.inf else due_s - MARGIN * (due_s - request.arrival_s)


@dataclass(slots=True, eq=False)
class Preemption:
    """Looks after the urgent requests that wait, on a machine with express processors.

    Attributes:
        again_s: When to look again if nothing happens before; infinite: not at all.
    """

    _state: State
    _view: View
    again_s: float = math.inf
    _lowest: int = 0
    _spare_s: dict[str, float] = field(default_factory=dict)
    _known: list[tuple[_Urgency, int]] = field(default_factory=list)

    def arrived(self, request: Request) -> None:
        """Take note that requests of a lower priority come, so that others are above them."""
        if request.priority < self._lowest:
            self._lowest = request.priority

    def note(self, request: Request) -> None:
        """Look after a request that begins to wait, if it is more urgent than others may be."""
        if request.deadline_s == math.inf and request.priority <= self._lowest:
            return
        seconds = self._view.resident_s(self._state.requests[request.id].lane)
        least_s = min(seconds.values(), default=0.0)
        self._spare_s[request.model] = request.deadline_s - request.arrival_s - least_s
        known, waiting = self._known, self._state.waiting
        entry = (_urgency(request), request.id)
        at = bisect_left(known, entry)
        if at == len(known) or known[at] != entry:
            known.insert(at, entry)
        if len(known) > _FEW and len(known) > 2 * len(waiting):
            self._known = [entry for entry in known if entry[1] in waiting]

    def starts(self) -> Iterator[OnTop]:
        """Yield what must start on an express processor now; each is to be started at once."""
        self.again_s = math.inf
        state, view = self._state, self._view
        express, now = state.express, view.now
        assert express is not None
        if not self._known:
            return
        below = self._below(express)
        if not below:
            return  # the end of what runs there is looked at anyway
        urgent = self._urgent()
        ready_s = self._ready_s(express, now) if urgent else {}
        turns = self._turns(express)
        for request in urgent:
            if request.id not in state.waiting:
                continue  # it shares the run of another one
            progress = state.requests[request.id]
            seconds = view.resident_s(progress.lane)
            finish_s, name = min((ready_s[n] + s, n) for n, s in seconds.items())
            limit_s = _limit_s(request)
            last_s = limit_s - min(seconds.values())
            is_late = finish_s > limit_s or now >= last_s
            way = None
            if now < last_s and (
                self._takes_its_turn(express, turns, progress.lane, limit_s)
                or self._is_let_wait(progress.lane)
            ):
                # If those before it take too long, another core is left at `last_s`.
                is_late = False
            else:
                way = self._way_of(express, below, progress.lane, request, is_late=is_late)
            if way is not None:
                started = self._with_riders(express, dict(below), progress, way, urgent)
                yield started
                if not any(each.id in state.waiting for each in urgent):
                    return  # all of them share the run
                step = started.step
                turns = {**self._turns(express), **turns}
                below = self._below(express)
                if not below:
                    return
                overlaid = express.processors[step.processor].overlays
                for other, processor in state.in_service.items():
                    if not overlaid.isdisjoint(processor.units):
                        ready_s[other] += step.seconds
                continue
            if not is_late and last_s < self.again_s:
                self.again_s = last_s
            for other in state.neighbours[name]:
                if other in ready_s:
                    ready_s[other] = max(ready_s[other], finish_s)

    def _urgent(self) -> list[Request]:
        """Return the most urgent of the waiting requests; forget those before them."""
        waiting, known = self._state.waiting, self._known
        alive: list[Request] = []
        seen = 0
        for _, number in known:
            seen += 1
            request = waiting.get(number)
            if request is not None:
                alive.append(request)
                if len(alive) == _LOOKED_AT:
                    break
        if seen > len(alive):
            known[:seen] = [(_urgency(request), request.id) for request in alive]
        return alive

    def _ready_s(self, express: ExpressProcessors, now: float) -> dict[str, float]:
        """When each ordinary processor could start something and get on with it."""
        free_at = self._view.units_free_at()
        for unit, at_s in express.free_at(now).items():
            free_at[unit] = max(at_s, free_at.get(unit, now))
        return self._view.free_s(free_at)

    def _turns(self, express: ExpressProcessors) -> dict[str, float]:
        """Return the express processors of cores with a brief run, and when it should end."""
        return {
            execution.processor: execution.expected_end_s
            for execution in express.running.values()
            if execution.expected_s <= BRIEF_S
            and self._view.now <= execution.expected_end_s
            and lowers_threads(express.processors[execution.processor])
        }

    def _takes_its_turn(
        self, express: ExpressProcessors, turns: dict[str, float], lane: Lane, limit_s: float
    ) -> bool:
        """Tell whether a request is brief, and in time after others that are; note its turn."""
        for name, ready_s in turns.items():
            if name in lane.excluded:
                continue
            found = self._step(express, name, lane)
            if found is not None and found[1] <= BRIEF_S and ready_s + found[1] <= limit_s:
                turns[name] = ready_s + found[1]
                return True
        return False

    def _is_let_wait(self, lane: Lane) -> bool:
        """Tell whether a brief request waits for a brief run although a core is idle for it."""
        brief_on = lane.brief_on
        return (
            bool(brief_on)
            and any(map(self._state.is_idle, brief_on))
            and any(execution.processor in brief_on for execution in self._view.brief_runs())
        )

    def _way_of(
        self,
        express: ExpressProcessors,
        below: Sequence[_Below],
        lane: Lane,
        request: Request,
        *,
        is_late: bool,
    ) -> Way | None:
        """Return what an express processor should run of a request now, if any should.

        A cheaper variant only if that alone is in time.

        Args:
            express: The express processors.
            below: Those that may start something, and what that would hold up.
            lane: Where the request waits.
            request: The request.
            is_late: Whether it would be late by waiting.
        """
        best: tuple[_Worth, Way] | None = None
        mine = _urgency(request)
        for name, worth in below:
            if name in lane.excluded or not lane.may_start(express.twins[name], self._view.now):
                continue
            if worth[0] <= mine or (best and worth <= best[0]):
                continue
            found = self._step(express, name, lane)
            served, left_s = lane, request.deadline_s - self._view.now
            for cheaper in lane.cheaper:
                if found is not None and found[1] <= left_s:
                    break
                other = self._step(express, name, cheaper)
                if other is not None and other[1] <= left_s:
                    served, found = cheaper, other
            if found is None:
                continue
            step, seconds = found
            only_waits = _only_waits(worth[0], mine)
            if not is_late and not (only_waits and seconds <= self._others_spare_s((lane.model,))):
                continue
            in_time = self._view.now + seconds <= request.deadline_s
            if in_time or (only_waits and request.on_late is OnLate.RUN):
                best = (worth, Way(served, step))
        return best[1] if best else None

    def _with_riders(
        self,
        express: ExpressProcessors,
        below: Mapping[str, _Worth],
        progress: Progress,
        way: Way,
        urgent: Sequence[Request],
    ) -> OnTop:
        """Return how a request is started, with those that share its run if that pays.

        What is held up by it for longer then must miss no deadline.
        """
        lane, request, (served, step, _) = progress.lane, progress.request, way
        shared, under = None, below[step.processor][0]
        may_hold_up = under == _NOTHING or _only_waits(under, _urgency(request))
        if served is lane and lane.fused and may_hold_up:
            spare_s = self._others_spare_s
            shared = shared_run(self._state, express, lane, request, step, spare_s, urgent)
        if shared is None:
            return OnTop((progress,), served.variant, step)
        variant, step, riders = shared
        requests = self._state.requests
        return OnTop((progress, *[requests[each.id] for each in riders]), variant, step)

    def _others_spare_s(self, served: Collection[str]) -> float:
        """Return how long no urgent model but these is late by, whenever its requests come."""
        models = self._state.variants
        return min(
            (s for model, s in self._spare_s.items() if model not in served and model in models),
            default=math.inf,
        )

    def _below(self, express: ExpressProcessors) -> list[_Below]:
        """Return the express processors that may start something, and what that would hold up.

        Of what is equally urgent the one that was held up before for longer, by `SHORT_S` or more,
        is spared, and more so what is idle.
        """
        unit_user = self._state.unit_user()
        known: dict[tuple[frozenset[int], bool], _Worth | None] = {}  # mostly one is under several
        found: list[_Below] = []
        for name in express.idle():
            processor = express.processors[name]
            numbers = frozenset([unit_user[u] for u in processor.overlays if u in unit_user])
            key = numbers, lowers_threads(processor)
            if key not in known:
                known[key] = self._worth(express, *key)
            worth = known[key]
            if worth is not None:
                found.append((name, worth))
        return found

    def _worth(
        self, express: ExpressProcessors, numbers: Collection[int], by_threads: bool
    ) -> _Worth | None:
        """Return what would be held up of these executions; None: they are waited for."""
        if not numbers:
            return _IDLE
        under = [self._state.running[number] for number in numbers]
        if by_threads and self._are_short(under):
            return None
        now = self._view.now
        urgency = min([_urgency(r) for execution in under for r in execution.requests])
        most_s = max([express.held_up_s(number, now) for number in numbers])
        return urgency, -(most_s // SHORT_S)

    def _are_short(self, under: Sequence[Execution]) -> bool:
        """Tell whether all of these are short runs; look again when they should have ended."""
        until_s = max(execution.started_s for execution in under) + _OVERDUE_S
        if self._view.now >= until_s:
            return False
        if any(e.expected_end_s - e.started_s >= SHORT_S for e in under):
            return False
        self.again_s = min(self.again_s, until_s)
        return True

    def _step(self, express: ExpressProcessors, name: str, lane: Lane) -> tuple[Step, float] | None:
        """Return what it would run of a lane that is loaded, and the seconds to the end."""
        found = self._any_step(express, name, lane)
        if found is None or self._state.residency.may_start(lane.variant, found[0].span, name):
            return found
        return None

    def _any_step(
        self, express: ExpressProcessors, name: str, lane: Lane
    ) -> tuple[Step, float] | None:
        """Return what it would run of a lane, to the end if it can, and the seconds to the end."""
        batch, shape = lane.key.batch, lane.key.shape
        routes, twin = lane.routes, express.twins[name]
        seconds = express.estimates.row(lane.variant, lane.rest, batch, shape).get(name)
        if seconds is not None:
            return Step(lane.rest, name, seconds), seconds
        if routes is None or twin not in lane.seconds:
            return None
        span = routes.step(lane.key.position, twin).span
        seconds = express.estimates.row(lane.variant, span, batch, shape)[name]
        return Step(span, name, seconds), seconds + routes.rest_s(span.last + 1)


def _only_waits(below: _Urgency, mine: _Urgency) -> bool:
    """Tell whether what runs only gets on later if something goes first: it misses no deadline.

    An idle core is the policy's: it has a reason to leave it idle.
    """
    return below != _NOTHING and (below[0] > mine[0] or below[1] == math.inf)
