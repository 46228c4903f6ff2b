"""Riders: which waiting requests share the execution of another one. The rule of batching.

They are requests of its model, in one batch, or one each of other models, in a fused variant.

A request rides along with the first of its lane where all of this holds:
- The profile says that it is cheaper: the run gets longer by less than a run of its own would take.
  Of the numbers of riders that are allowed, the one is taken that saves most.
- Nobody in the execution becomes late by it. Who would be late alone as well does not count; nor
  does anybody who may be late, in a fused run, where what waits is more than can be done in time in
  runs of a request each: then somebody is late in any case, and least are where most is done. It
  makes no more late than are in time in it.
- It keeps the processor no longer from others than `Blocking` allows.
- The other processors have enough to do until its end (`flow`); a fused run is not over later than
  all that waits would be without it (`backlog`).
- It would not be served sooner, as far as the profile tells, by a processor that is idle: what
  waits is dealt out among the idle processors that no other waiting request needs.

In a fused variant, the first of each lane of another member rides, by the same rules: the run must
be cheaper than runs of their own although it takes as long for few as for all. To what a run takes
there counts what handing it over takes, where that was measured: of networks of some 100 us it is
much of what riding saves. Of a fused run counts no more of what slowed it down since it was
measured than of runs apart: only what runs is learnt. Of several fused variants, and batches, that
is taken which takes least per request. Where memory has a budget, only of those that are loaded;
whose own is not is served by one that is, alone if nobody rides.

Forks, and requests that failed before, have no riders; what preempts only in fused variants, by a
rule of its own (`coinfer.core.shared_preemption`). Stacked can only be what has equal sizes. A lane
that does not batch is not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from coinfer.core.backlog import Backlog
from coinfer.core.flow import Flow
from coinfer.core.fusing import Fused
from coinfer.core.lane import Lane
from coinfer.core.request import OnLate, Request
from coinfer.core.routes import Step
from coinfer.core.state import State
from coinfer.core.substitutes import fused_substitute
from coinfer.core.variants import Way

__all__ = ["LEAST_GAIN", "MOST_UNFAIR", "Riders"]

LEAST_GAIN = 0.05
"""Share of a run of its own by which riding must be cheaper: less is noise of the measurement."""

MOST_UNFAIR = 2.0
"""What is learnt of a fused run counts less by this at most: what slows it down further, and not
runs apart as far as is known, is taken for its own. Runs apart then show whether it is."""

_LOOKS = 4
"""Requests looked at for each that may ride along: some are of other sizes, or would be late."""

_MOST_APART = 2.0
"""Members of a fused variant are of one architecture: none takes so many times as another."""

_new = tuple.__new__


@dataclass(slots=True, eq=False)
class Riders:
    """Finds who shares an execution.

    Attributes:
        longest_s: Returns how long an execution of a lane, and of those that ride with it, may keep
            a processor, at least the seconds of one request; None: as long as it takes.
        allows: Tells whether a lane's requests may be served on a processor; None: on all.
        flow: Tells whether the other processors have enough to do meanwhile; None: they have.
    """

    _state: State
    longest_s: Callable[..., float] | None = None
    allows: Callable[[Lane, str], bool] | None = None
    flow: Flow | None = None

    def join(
        self, lane: Lane, step: Step, first: Request | None = None, way: Way | None = None
    ) -> tuple[Step, tuple[Request, ...], str]:
        """Return a step of a waiting request as it runs with its riders, these, and what runs.

        Args:
            lane: Where it waits.
            step: The step, of this request alone.
            first: The request; by default the first of the lane. Those before it do not ride.
            way: How it is served, if not as the lane's own variant; the step is its.
        """
        served = lane if way is None else way.lane
        if lane.fused and self._state.residency.is_tight and lane.heap:
            lent = self._lent(lane, served, step, first or lane.head)
            if lent is not None:
                return lent
        if (not lane.shares and served is lane) or not lane.heap:
            return step, (), served.variant
        first = first or lane.head
        riders = self._stacked(lane, way or Way(lane, step), first)
        span, processor, own_s = step
        seconds, variant = own_s, served.variant
        if riders:
            seconds = self._seconds(served, step, 1 + len(riders))
        if lane.fused and served is lane:
            each_s = math.inf
            if riders:
                each_s = (seconds + lane.fused[0].handover_s) / (1 + len(riders))
            found = self._fused(lane, step, first, each_s)
            if found is not None:
                fused, seconds, riders = found
                variant = fused.name
        return (_new(Step, (span, processor, seconds)) if riders else step), riders, variant

    def _lent(
        self, lane: Lane, served: Lane, step: Step, first: Request
    ) -> tuple[Step, tuple[Request, ...], str] | None:
        """Return how a fused variant serves a request of which nothing is loaded; None if none."""
        span, processor, _ = step
        if self._state.residency.is_loaded(served.variant, span, processor):
            return None
        found = fused_substitute(self._state, lane, step, first)
        if found is None:
            return None
        fused, seconds = found
        riders = tuple([each[1] for each in self._heads(fused, lane, processor, first, seconds)])
        return _new(Step, (span, processor, seconds)), riders, fused.name

    def _stacked(self, lane: Lane, way: Way, first: Request) -> tuple[Request, ...]:
        """Return which requests of the same lane ride."""
        batching = way.lane.batching
        if batching is None or len(lane.heap) < 2 or lane.excluded or lane.key.alone:
            return ()
        samples = lane.key.batch
        most = batching.at(way.step.span) if batching.by_unit else batching.most
        most = min(most // samples, len(lane)) if samples else 1
        return self._chosen(lane, way, first, most) if most > 1 else ()

    def _fused(
        self, lane: Lane, step: Step, first: Request, each_s: float
    ) -> tuple[Fused, float, tuple[Request, ...]] | None:
        """Return the fused variant that takes least per request, its seconds and who rides.

        Args:
            lane: Where the first request waits.
            step: Its step, alone.
            first: It.
            each_s: Seconds per request that it must take less than, handing over included.
        """
        key, processor, own_s = lane.key, step.processor, step.seconds
        state = self._state
        left_s, lanes = first.deadline_s - state.now, len(state.lanes)
        residency = state.residency
        is_tight = residency.is_tight
        found = backlog = None
        for fused in lane.fused:
            row = state.estimates.row(fused.name, step.span, key.batch, key.shape)
            seconds = row.get(processor, math.inf)
            if seconds == math.inf:
                continue
            if is_tight and not residency.may_start(fused.name, step.span, processor):
                continue
            handover_s = fused.handover_s
            # Too few wait: nearly always, at low load.
            if (_MOST_APART * own_s + handover_s) * lanes < seconds + handover_s:
                continue
            if backlog is None:
                backlog = Backlog.of(self.flow, state.lanes, lane, step, handover_s)
            is_too_much = backlog.is_too_much
            if own_s <= left_s < seconds and not (is_too_much and first.on_late is OnLate.RUN):
                continue
            others = self._heads(fused, lane, processor, first, seconds, is_too_much=is_too_much)
            if is_too_much:
                each_left_s = [left_s, *[each[1].deadline_s - state.now for each in others]]
                made_late = sum(own_s <= each < seconds for each in each_left_s)
                if made_late > sum(each >= seconds for each in each_left_s):
                    continue
            fair_s = seconds * self._fairness(fused, lane, step)
            gain_s = (1 - LEAST_GAIN) * (own_s + sum([each[0] for each in others])) - fair_s
            run_s = fair_s + handover_s
            gain_s += handover_s * len(others) - backlog.least_gain_s(run_s)
            if not others or gain_s <= 0 or run_s >= each_s * (1 + len(others)):
                continue
            if not backlog.outlasts(run_s):
                continue
            riding = {each[2] for each in others}
            if self.longest_s is not None:
                longest_s = self.longest_s(lane, processor, own_s, riding, is_too_much=is_too_much)
                if seconds > longest_s:
                    continue
            each_s = run_s / (1 + len(others))
            found = fused, seconds, tuple([each[1] for each in others])
        return found

    def _fairness(self, fused: Fused, lane: Lane, step: Step) -> float:
        """Return how many times of what a fused run takes is to be held against runs apart.

        What slows it down beyond what was measured, such as other threads of the interpreter, slows
        these down as well, but is learnt of what runs only: so it counts no more than it is known
        of the lane's own run, as when they were measured side by side. Nobody knows that of a run
        that is not made any more, so there is a limit to it.
        """
        slowed, key, (span, processor, _) = self._state.estimates.slowed, lane.key, step
        own = slowed(lane.variant, processor, span, key.batch, key.shape)
        fused_slowed = slowed(fused.name, processor, span, key.batch, key.shape)
        return max(1 / MOST_UNFAIR, min(1.0, own / fused_slowed))

    def _heads(
        self,
        fused: Fused,
        lane: Lane,
        processor: str,
        first: Request,
        seconds: float,
        *,
        is_too_much: bool = False,
    ) -> list[tuple[float, Request, Lane]]:
        """Return who rides in a fused run of so many seconds: own seconds, request and lane."""
        state = self._state
        waiting = [
            other
            for other in state.heads_of(fused, lane.key)
            if other is not lane and fused in other.fused and processor in other.seconds
        ]
        if not waiting:
            return []
        waiting.sort(key=_head_rank)
        idle = self._idle_beside(lane, processor, waiting)
        residency, is_tight, found = state.residency, state.residency.is_tight, []
        handover_s, now = fused.handover_s, state.now
        for other in waiting:
            request = other.heap[0][2]
            if idle:
                ends = [
                    (s + other.seconds.get(name, math.inf) + handover_s, name)
                    for name, s in idle.items()
                    if not is_tight or residency.is_loaded(other.variant, other.rest, name)
                ]
                sooner_s, name = min(ends, default=(math.inf, ""))
                if sooner_s < seconds + handover_s:
                    idle[name] = sooner_s
                    continue
            if request.sizes != first.sizes:
                continue
            if self.allows is not None and not self.allows(other, processor):
                continue
            if request.on_late is OnLate.RUN and (
                is_too_much or seconds <= request.deadline_s - now
            ):
                rides = True  # nearly always: what is late in any case may ride, too
            else:
                rides = seconds <= self._spare_s(request, self._least_s(other), 0.0)
            if rides:
                found.append((other.seconds[processor], request, other))
        return found

    def _idle_beside(self, lane: Lane, processor: str, waiting: Sequence[Lane]) -> dict[str, float]:
        """Return when what is dealt out to each idle processor beside one is done there; 0 yet."""
        if len(self._state.idle()) < 2:
            return {}
        count = len(lane) + sum(map(len, waiting))
        return dict.fromkeys(self._others(lane, processor, count), 0.0)

    def _chosen(self, lane: Lane, way: Way, first: Request, most: int) -> tuple[Request, ...]:
        served, step, better_s = way
        own_s, processor = step.seconds, step.processor
        most = self._share(lane, way, most)
        if most < 2:
            return ()
        limit_s = math.inf if self.longest_s is None else self.longest_s(lane, processor, own_s)
        after_s, least_s = self._after_s(served, step), self._least_s(served)
        if own_s + after_s <= first.deadline_s - self._state.now:
            limit_s = min(limit_s, first.deadline_s - self._state.now - after_s)
        flow, work_s, least_work_s, others = self.flow, math.inf, 0.0, 0.0
        if flow is not None:
            work_s, least_work_s, like = flow.beside_s(lane)
            if own_s > 0 and not lane.takes_turns(processor, work_s):  # else none is woken for it
                others = like - least_work_s / own_s
        now, first_id, sizes = self._state.now, first.id, first.sizes
        row_of, variant, key, span = self._state.estimates.row, served.variant, lane.key, step.span
        chosen: list[Request] = []
        most_saved_s, best, looks, is_before = 0.0, 0, _LOOKS * most, first is not lane.head
        for _, request in lane.ranked():
            if is_before or request.id == first_id:
                is_before = is_before and request.id != first_id
                continue
            looks -= 1
            count = len(chosen) + 2  # of the run with this one
            if count > most or not looks:
                break
            row = row_of(variant, span, count * key.batch, key.shape)  # as `_seconds`
            seconds = row.get(processor, math.inf)
            if seconds > limit_s:
                break
            if others > 0:
                lacks_s = others * seconds - work_s + count * least_work_s
                if lacks_s > 0 and (flow is None or flow.comes_s(seconds) < lacks_s):
                    break
            if request.sizes != sizes:
                continue
            deadline_s = request.deadline_s
            if served is not lane and deadline_s - now >= better_s:
                continue  # a more accurate variant serves it in time
            if deadline_s < math.inf:
                spare_s = self._spare_s(request, least_s, after_s)
                if seconds > spare_s:
                    continue
                limit_s = min(limit_s, spare_s)
            chosen.append(request)
            saved_s = (1 - LEAST_GAIN) * own_s * count - seconds
            if saved_s > most_saved_s:
                most_saved_s, best = saved_s, count - 1
        return tuple(chosen[:best])

    def _seconds(self, lane: Lane, step: Step, count: int) -> float:
        """Return what a step takes for so many requests."""
        key = lane.key
        row = self._state.estimates.row(lane.variant, step.span, count * key.batch, key.shape)
        return row.get(step.processor, math.inf)

    def _after_s(self, lane: Lane, step: Step) -> float:
        """Return what is added to the seconds of a step until the answer: the load, and the rest.

        The rest is that of a request alone: at the next boundary all this is decided again.
        """
        held, routes = self._state.residency, lane.routes
        load_s = held.cost_s(step.processor, lane.variant) if held.costs else 0.0
        last = step.span.last + 1
        return load_s if routes is None else load_s + routes.rest_s(last)

    def _least_s(self, lane: Lane) -> float:
        in_service = self._state.in_service
        return min([s for name, s in lane.seconds.items() if name in in_service], default=math.inf)

    def _spare_s(self, request: Request, least_s: float, after_s: float) -> float:
        """Return how long the step may take that a request rides along with.

        What is late in any case may ride, unless it is to be dropped.
        """
        left_s = request.deadline_s - self._state.now
        if left_s >= least_s:
            return left_s - after_s
        return math.inf if request.on_late is OnLate.RUN else -math.inf

    def _share(self, lane: Lane, way: Way, most: int) -> int:
        """Return how many requests a processor gets, if what waits is dealt out among the idle."""
        served, step, _ = way
        others = self._others(lane, step.processor, len(lane))
        if not others:
            return most
        mine, counts = 1, [0] * len(others)
        waiting = len(lane)
        for _ in range(waiting - 1):
            if mine == most:
                break
            ends = [
                (self._seconds(served, _new(Step, (step.span, name, 0.0)), counts[at] + 1), at)
                for at, name in enumerate(others)
            ]
            least_s, at = min(ends)
            if least_s < self._seconds(served, step, mine + 1):
                counts[at] += 1
                if counts[at] > most:
                    break
            else:
                mine += 1
        return mine

    def _others(self, lane: Lane, processor: str, count: int) -> list[str]:
        """Return idle processors that could serve the lane beside this one and beside each other.

        As many are left out as requests wait beside the `count` that might ride.
        """
        state = self._state
        idle = state.idle()
        if len(idle) < 2 or lane.takes_turns(processor, count * lane.seconds.get(processor, 0.0)):
            return []
        taken: set[str] = set(state.neighbours.get(processor, ()))
        found: list[str] = []
        for name in sorted(idle, key=lambda each: state.widths[each]):
            if name in taken or name not in lane.seconds or name in lane.excluded:
                continue
            if self.allows is not None and not self.allows(lane, name):
                continue
            found.append(name)
            taken.update(state.neighbours[name])
        return found[: max(0, len(found) - (len(state.waiting) - count))]


def _head_rank(lane: Lane) -> Any:
    return lane.head_rank
