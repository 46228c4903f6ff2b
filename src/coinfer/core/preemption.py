"""Preemption: which urgent requests start on an express processor because waiting makes them late.

A rule of the dispatcher that no policy repeats; it applies to what still waits after the policy's
decisions. A request whose deadline is finite starts on an idle express processor if, by the
estimates, it would finish too late on every ordinary one. Too late is less than `MARGIN` of its
relative deadline before the deadline. The earliest deadline goes first. Nothing is started in vain:
either it finishes in time there, or it may run late anyway; and nothing more urgent is held up.

The estimates of waiting know what runs and what of the requests looked at goes before, not what the
policy has in mind. So each request is looked at again at the last moment at which an idle processor
would still do.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

from coinfer.core.express import ExpressProcessors
from coinfer.core.lane import Lane
from coinfer.core.progress import Progress
from coinfer.core.request import OnLate, Request
from coinfer.core.routes import Step
from coinfer.core.state import State
from coinfer.core.view import View

__all__ = ["MARGIN", "Preemption"]

MARGIN = 0.5
"""Share of its relative deadline by which a request that waits is to finish before the deadline."""

_LOOKED_AT = 8
"""Requests looked at after one event: those with the earliest deadlines."""

_FEW = 64


@dataclass(slots=True, eq=False)
class Preemption:
    """Looks after the waiting requests that have a deadline, on a machine with express processors.

    Attributes:
        again_s: When to look again if nothing happens before; infinite: not at all.
    """

    _state: State
    _view: View
    again_s: float = math.inf
    _deadlines: list[tuple[float, int]] = field(default_factory=list)

    def note(self, request: Request) -> None:
        """Look after a request that begins to wait."""
        if request.deadline_s == math.inf:
            return
        known, waiting = self._deadlines, self._state.waiting
        entry = (request.deadline_s, request.id)
        at = bisect_left(known, entry)
        if at == len(known) or known[at] != entry:
            known.insert(at, entry)
        if len(known) > _FEW and len(known) > 2 * len(waiting):
            self._deadlines = [entry for entry in known if entry[1] in waiting]

    def starts(self) -> Iterator[tuple[Progress, Step]]:
        """Yield what must start on an express processor now; each is to be started at once."""
        self.again_s = math.inf
        state, view = self._state, self._view
        express, now = state.express, view.now
        assert express is not None
        if not express.idle():
            return  # the end of what runs there is looked at anyway
        urgent = self._urgent()
        ready_s = self._ready_s(express, now) if urgent else {}
        for request in urgent:
            progress = state.requests[request.id]
            seconds = view.resident_s(progress.lane)
            finish_s, name = min((ready_s[n] + s, n) for n, s in seconds.items())
            limit_s = request.deadline_s - MARGIN * (request.deadline_s - request.arrival_s)
            last_s = limit_s - min(seconds.values())
            if finish_s <= limit_s and now < last_s:
                self.again_s = min(self.again_s, last_s)
            elif (step := self._step(express, progress.lane, request)) is not None:
                yield progress, step
                if not express.idle():
                    return
                overlaid = express.processors[step.processor].overlays
                for other, processor in state.in_service.items():
                    if not overlaid.isdisjoint(processor.units):
                        ready_s[other] += step.seconds
                continue
            for other in state.neighbours[name]:
                if other in ready_s:
                    ready_s[other] = max(ready_s[other], finish_s)

    def _urgent(self) -> list[Request]:
        """Return the waiting requests with the earliest deadlines; forget those before them."""
        waiting, known = self._state.waiting, self._deadlines
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
            known[:seen] = [(request.deadline_s, request.id) for request in alive]
        return alive

    def _ready_s(self, express: ExpressProcessors, now: float) -> dict[str, float]:
        """When each ordinary processor could start something and get on with it."""
        free_at = self._view.units_free_at()
        for unit, at_s in express.free_at(now).items():
            free_at[unit] = max(at_s, free_at.get(unit, now))
        return self._view.free_s(free_at)

    def _step(self, express: ExpressProcessors, lane: Lane, request: Request) -> Step | None:
        """Return what an express processor should run of a request now, if any should."""
        best: tuple[tuple[float, float], Step] | None = None
        for name in express.idle():
            if name in lane.excluded or not lane.may_start(express.twins[name], self._view.now):
                continue
            worth = self._worth(express, name)
            found = self._way(express, name, lane)
            if found is None or worth[0] <= request.deadline_s or (best and worth <= best[0]):
                continue
            step, seconds = found
            in_time = self._view.now + seconds <= request.deadline_s
            if in_time or request.on_late is OnLate.RUN:
                best = (worth, step)
        return best[1] if best else None

    def _worth(self, express: ExpressProcessors, name: str) -> tuple[float, float]:
        """Return the earliest deadline of what it would hold up, and how little that was before.

        On a tie of the deadlines what was held up before is spared, and more so what is idle.
        """
        state, now = self._state, self._view.now
        unit_user = state.unit_user()
        under = {unit_user.get(unit) for unit in express.processors[name].overlays}
        numbers = [number for number in under if number is not None]
        due_s = [r.deadline_s for number in numbers for r in state.running[number].requests]
        held_up_s = [express.held_up_s(number, now) for number in numbers]
        return min(due_s, default=math.inf), -max(held_up_s, default=-1.0)

    def _way(self, express: ExpressProcessors, name: str, lane: Lane) -> tuple[Step, float] | None:
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
