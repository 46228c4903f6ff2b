"""View: what a policy may see. Reads the state; changes nothing."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Any

from coinfer.core.alike import Alike
from coinfer.core.commands import Execution
from coinfer.core.lane import Lane
from coinfer.core.lookahead import Lookahead
from coinfer.core.offer import Offer, make_offer
from coinfer.core.request import OnLate, Request
from coinfer.core.residency import Residency
from coinfer.core.riders import Riders
from coinfer.core.running_fork import RunningFork
from coinfer.core.state import State
from coinfer.core.variants import best_way, offered_ways
from coinfer.errors import PolicyError
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span

__all__ = ["View"]

_DROP = OnLate.DROP

_LEAST_OVERRUN_S = 1e-5
"""An execution that should end this very moment is not over before its event is here."""


class View:
    """Read-only sight of the state at a moment.

    Attributes:
        now: The moment, in the engine's seconds.
        wakes: Whether handing a run to another thread takes time that is known.
    """

    __slots__ = ("_idle", "_lanes", "_riders", "_state", "now", "wakes")

    def __init__(self, state: State, riders: Riders) -> None:
        self._state = state
        self._riders = riders
        self._lanes = state.lanes
        self._idle: Callable[[], Sequence[str]] = state.idle
        self.now = -math.inf
        self.wakes = bool(state.wakes)

    @property
    def preempts(self) -> bool:
        """Whether urgent requests preempt others; `overtaking_s` tells how soon."""
        express = self._state.express
        return express is not None and bool(express.in_service)

    def overtaking_s(self, lane: Lane) -> float:
        """Return the seconds until the answer to a request of a lane that preempts others.

        Infinite if none can. Of a model that is cut they are those where nothing is preempted.
        """
        express = self._state.express
        if express is None or not express.in_service:
            return math.inf
        row = express.estimates.row(lane.variant, lane.rest, lane.key.batch, lane.key.shape)
        if lane.routes is not None and not row:
            return min(self.resident_s(lane).values(), default=math.inf)
        return min([s for name, s in row.items() if name in express.in_service], default=math.inf)

    @property
    def preempted_s(self) -> float:
        """Seconds, by the estimates, of all that preempted something until now."""
        express = self._state.express
        return 0.0 if express is None else express.preempted_s

    @property
    def processors(self) -> Mapping[str, Processor]:
        """The ordinary processors in service, by name, in the order of preference."""
        return self._state.in_service

    @property
    def all_processors(self) -> Mapping[str, Processor]:
        """All ordinary processors by name, also those that are out of service."""
        return self._state.processors

    @property
    def models(self) -> Collection[str]:
        """Names of the loaded models."""
        return self._state.variants.keys()

    @property
    def n_waiting(self) -> int:
        """Number of waiting requests that need nothing loaded first."""
        state = self._state
        waiting = len(state.waiting)
        return waiting - sum(map(len, state.unready)) if state.unready else waiting

    @property
    def n_busy_with(self) -> int:
        """How many wait that need nothing loaded first, and how many executions run, together."""
        state = self._state
        if state.unready or state.preempting is not None:
            return self.n_waiting + len(self.running())
        return len(state.waiting) + len(state.running)

    def idle(self) -> list[str]:
        """Names of the processors that could start something now."""
        return list(self._idle())

    def is_idle(self, processor: str) -> bool:
        """Tell whether a processor could start something now."""
        return self._state.is_idle(processor)

    @property
    def alike(self) -> Sequence[Alike]:
        """Of many processors in service, those that are alike together, the narrowest first.

        Empty if there are few.
        """
        return self._state.alike

    @property
    def used(self) -> int:
        """The compute units that executions occupy, a bit each."""
        return self._state.used

    @property
    def n_units(self) -> int:
        """Number of compute units of all ordinary processors."""
        return self._state.all_units.bit_count()

    def least_unit_seconds(self, lane: Lane) -> float:
        """Return the fewest unit-seconds that the head of a lane takes anywhere; infinite if none.

        Where there are many processors.
        """
        seconds = self.resident_s(lane)
        return min([alike.least_s(seconds) * alike.width for alike in self.alike], default=math.inf)

    def bits_of(self, processor: str) -> int:
        """Return the compute units of a processor, a bit each as in `used`."""
        return self._state.bits_of[processor]

    def idle_runners(self, lane: Lane) -> list[str]:
        """Names of the idle processors that can run a lane's requests."""
        seconds = lane.seconds
        able = [name for name in self._idle() if name in seconds]
        if lane.is_open:
            return able
        now = self.now
        return [name for name in able if lane.may_start(name, now)]

    def lanes(self) -> Collection[Lane]:
        """The lanes in which something waits."""
        return self._lanes.keys()

    def startable(self) -> list[tuple[Lane, list[str]]]:
        """Return each lane in which something waits with the idle processors able to run it."""
        lanes = self._lanes
        idle = self._idle() if lanes else None
        if not idle:
            return []
        found = []
        for lane in lanes:
            if lane.is_open:
                seconds = lane.seconds
                able = [name for name in idle if name in seconds]
            else:
                able = self.idle_runners(lane)
            if able:
                found.append((lane, able))
        return found

    def first_startable(self) -> tuple[Lane, Sequence[str]] | None:
        """Return the lane of `startable` whose head comes first in the policy's order."""
        lanes = self._lanes
        idle = self._idle() if lanes else None
        if not idle:
            return None
        # Nearly always it is the first lane of all: the others are then not looked at more closely.
        lane = _first(lanes)
        if len(idle) == 1 and lane.is_open and idle[0] in lane.seconds:
            return lane, idle  # nearly always where work waits
        able = self.idle_runners(lane)
        if able:
            return lane, able
        return min(self.startable(), key=_head_rank, default=None)

    def runners(self, lane: Lane) -> list[str]:
        """Names of the processors in service, busy or idle, that can run a lane's requests."""
        return [name for name in self._state.in_service if self.can_run(lane, name)]

    def can_run(self, lane: Lane, processor: str) -> bool:
        """Tell whether a processor in service can run the next step of a lane's requests."""
        return self._state.can_run(lane, processor)

    def can_run_span(self, lane: Lane, processor: str, span: Span) -> bool:
        """Tell whether a processor in service can run this span of a lane, and not in vain."""
        routes = lane.routes
        return (
            span.first == lane.key.position
            and processor in self._state.in_service
            and processor not in lane.excluded
            and self.span_s(lane.variant, processor, span, lane.key.batch, lane.key.shape)
            < math.inf
            and (routes is None or routes.leads_on(span))
            and (lane.is_lent or self._state.residency.is_loaded(lane.variant, span, processor))
        )

    def sharing(self, processor: str) -> Collection[str]:
        """Names of the processors that share a compute unit with one, itself included."""
        return self._state.neighbours[processor]

    def runs_some_of(self, model: str, processor: str) -> bool:
        """Tell whether a processor, in service or not, can run some span of a model."""
        runs_some_of = self._state.estimates.runs_some_of
        variants = self._state.variants.get(model, ())
        return any(runs_some_of(variant, processor) for variant in variants)

    def is_unanswered(self, request_id: int) -> bool:
        """Tell whether a request waits or runs."""
        return request_id in self._state.requests

    def by_arrival(self) -> Iterator[Request]:
        """Iterate over the waiting requests, the one that has waited longest first."""
        everyone = self._state.waiting.values()
        if self._state.unready:
            return iter([r for r in everyone if self.lane_of(r) not in self._state.unready])
        return iter(everyone)

    def first(self) -> tuple[Lane, Request]:
        """Return what comes first in the policy's order. Something must wait."""
        lane = _first(self._lanes)
        return lane, lane.head

    def first_waiting(self, count: int) -> dict[Lane, Iterable[Request]]:
        """Return the first `count` waiting requests in the policy's order, by lane."""
        if self.n_waiting <= count:
            return {lane: lane.in_order() for lane in self._lanes}
        # As `heapq.merge` would, at less than half the price for so few; of most lanes only the
        # head is looked at.
        heads = [(*lane.heap[0], lane) for lane in self._lanes]
        heapq.heapify(heads)  # ids differ: no more is compared
        found: dict[Lane, list[Request]] = {}
        others: dict[Lane, Iterator[tuple[tuple[Any, int], Request]]] = {}
        for _ in range(count):
            _, _, request, lane = heads[0]
            found.setdefault(lane, []).append(request)
            following = None
            if len(lane.heap) > 1:
                ranked = others.get(lane)
                if ranked is None:
                    ranked = others[lane] = lane.ranked()
                    next(ranked)
                following = next(ranked, None)
            if following is None:
                heapq.heappop(heads)
            else:
                (rank, number), request = following
                heapq.heapreplace(heads, (rank, number, request, lane))
        return {**found}

    def in_order(self) -> Iterator[tuple[Lane, Request]]:
        """Iterate over all waiting requests in the policy's order, lazily."""
        lanes = self._lanes
        if len(lanes) == 1:  # the usual case of a machine that keeps up; a merge is slow to set up
            (lane,) = lanes
            for _, request in lane.ranked():
                yield lane, request
            return
        for _, lane, request in heapq.merge(*map(_ranked, lanes), key=itemgetter(0)):
            yield lane, request

    def first_in_order(self, count: int, free: Collection[str]) -> Iterator[tuple[Lane, Request]]:
        """Iterate over the first `count` waiting requests in the policy's order, then `others`.

        So many that wait for busy processors keep nobody else from a free one.
        """
        seen = set()
        for lane, request in islice(self.in_order(), count):
            seen.add(lane)
            yield lane, request
        yield from self.others(count, seen, free)

    def others(
        self, count: int, seen: Collection[Lane], free: Collection[str]
    ) -> Iterator[tuple[Lane, Request]]:
        """Iterate over the first requests of up to `count` other lanes in the policy's order.

        Args:
            count: So many at most.
            seen: Lanes that were looked at.
            free: Processors of which the lanes can use one.
        """
        if len(seen) < len(self._lanes):
            left = [lane for lane in self._lanes if lane not in seen and lane.could_use(free)]
            for lane in sorted(left, key=attrgetter("head_rank"))[:count]:
                yield lane, lane.head

    def waits(self, request: Request) -> bool:
        """Tell whether a request waits."""
        return request.id in self._state.waiting

    def lane_of(self, request: Request) -> Lane:
        """Return the lane in which a request waits. It must wait."""
        progress = self._state.requests[request.id]
        assert progress.waits, f"request {request.id} does not wait"
        return progress.lane

    def entrance(self, model: str, batch: int = 1, shape: int = 0) -> Lane:
        """Return the lane in which fresh requests of a model wait, perhaps none now."""
        return self._state.entrance(model, batch, shape)

    def expected_s(self, lane: Lane, processor: str) -> float:
        """Seconds of the offer to a lane's head, started now, as if nothing had to be loaded.

        Also for a processor that is out of service; infinite if it cannot.
        """
        if processor in lane.excluded:
            return math.inf
        seconds = self._started_s(lane) if lane.cheaper else lane.seconds
        return seconds.get(processor, math.inf)

    def _started_s(self, lane: Lane) -> Mapping[str, float]:
        """Return the seconds by processor, on idle ones of the variant that would serve the head.

        That is the lane's own wherever it is in time on some idle processor.
        """
        ways = offered_ways(self._state, lane, self._idle())
        if ways is None:
            return lane.seconds
        return {**lane.seconds, **{name: way.seconds[name] for name, way in ways.items()}}

    def resident_s(self, lane: Lane) -> Mapping[str, float]:
        """Return the seconds of a lane's own variant, as if nothing had to be loaded.

        By processor in service, busy or idle, that can run the next step: the seconds of that and,
        if more follows, of the best rest without waits. Good for one decision.
        """
        excluded, routes = lane.excluded, lane.routes
        # Those of a model that is cut are the same, but quicker to look through.
        seconds = lane.seconds if routes is None else routes.seconds(lane.key.position)
        if self._state.is_complete and not excluded:
            return seconds
        in_service = self._state.in_service
        if not excluded and seconds.keys() <= in_service.keys():
            return seconds
        return {
            name: seconds[name] for name in in_service if name in seconds and name not in excluded
        }

    def offered_s(self, lane: Lane, held: Residency | None = None) -> Mapping[str, float]:
        """Return the seconds of the offers to a lane's head, loads included, until its answer.

        By processor in service, busy or idle: what a policy compares. `offer` tells the rest. Where
        a model has cheaper variants, and its most accurate one would be late wherever it starts as
        soon as it can, they are the seconds of what would be put in.

        Args:
            lane: The lane.
            held: Which models the processors will hold then, as the caller foresees it; by default
                those that they hold now or are about to.
        """
        if lane.is_plain and self._state.is_complete:
            return lane.seconds  # nearly always
        seconds, held = self.resident_s(lane), held or self._state.residency
        if lane.cheaper:
            free_s, now = self.free_s(self.units_free_at()), self.now
            wait_s = {name: at_s - now for name, at_s in free_s.items() if at_s > now}
            ways = offered_ways(self._state, lane, free_s, wait_s)
            if ways is not None:
                return {n: way.seconds[n] + held.cost_s(n, way.variant) for n, way in ways.items()}
        return held.added_to(seconds, lane.variant) if held.costs else seconds

    def offer(
        self, lane: Lane, processor: str, last: int | None = None, held: Residency | None = None
    ) -> Offer:
        """Return how the head of a lane would be served on a processor, busy or idle.

        What starts is the same: a policy names the request and the processor only, and never lists
        riders.

        Args:
            lane: The lane.
            processor: Where.
            last: Last unit of the span; by default the processor's best way to the end decides.
            held: As for `offered_s`.

        Raises:
            PolicyError: the processor cannot serve it.
        """
        state = self._state
        if processor in lane.excluded:
            raise PolicyError(f"what waits in {lane.key} failed on {processor!r} before")
        held = held or state.residency
        costs = held if held.costs else None
        if lane.cheaper and lane.heap:
            way = best_way(state, lane, state.step(lane, processor, last), lane.head)
            step, riders, variant = self._riders.join(lane, way.step, None, way)
        else:
            step, riders, variant = self._riders.join(lane, state.step(lane, processor, last))
        return make_offer(lane, step, costs, riders, variant)

    def waited_s(
        self, lane: Lane, seconds: Mapping[str, float], free_at: Mapping[str, float]
    ) -> Mapping[str, float]:
        """Return seconds by processor, with how long a free one waits for the lane to be ready.

        Args:
            lane: A lane that may not start everywhere (`Lane.ready_s`).
            seconds: Seconds by processor.
            free_at: When each busy unit will be free.
        """
        now, processors, found = self.now, self._state.processors, {}
        for name, service_s in seconds.items():
            free_s = max([free_at.get(unit, now) for unit in processors[name].units])
            found[name] = service_s + max(0.0, lane.ready_s.get(name, now) - max(now, free_s))
        return found

    def reserve(
        self,
        lane: Lane,
        processor: str,
        until_s: float,
        free_at: dict[str, float],
        held: Residency | None = None,
        request: Request | None = None,
    ) -> tuple[Request, ...]:
        """Count what is offered to a request of a lane as reserved.

        Args:
            lane: Its lane.
            processor: Where.
            until_s: When the execution would end if it served this request alone.
            free_at: When each busy unit will be free, as the caller foresees it; changed.
            held: Which models the processors will hold then; changed.
            request: The request; by default the first of the lane.

        Returns:
            The riders of the offer: they need none of their own.
        """
        riders: tuple[Request, ...] = ()
        if lane.shares:
            alone = self._state.step(lane, processor)
            step, riders, _ = self._riders.join(lane, alone, request)
            until_s += step.seconds - alone.seconds
        for unit in self._state.units_of[processor]:
            free_at[unit] = until_s
        if held is not None:
            held.hold(processor, lane.variant)
        return riders

    def residency(self) -> Residency | None:
        """Return which models the processors hold, to foresee on; None if changes cost nothing."""
        held = self._state.residency
        return held.copy() if held.costs else None

    def span_s(
        self, model: str, processor: str, span: Span, batch: int = 1, shape: int = 0
    ) -> float:
        """Seconds to run any span of a model; infinite if the processor cannot."""
        seconds = self._state.estimates.expected_s(model, processor, span, batch, shape)
        return math.inf if seconds is None else seconds

    def unit_seconds(self, lane: Lane, processor: str) -> float:
        """Compute units times seconds: what a run takes away from everybody else."""
        return self.expected_s(lane, processor) * len(self._state.processors[processor].units)

    def fastest(self, lane: Lane, names: Iterable[str] | None = None) -> str:
        """Return which processor, of these or of all in service, takes the fewest seconds."""
        among = self._state.in_service if names is None else names
        seconds = self._started_s(lane) if lane.cheaper else lane.seconds
        excluded = lane.excluded
        return min(
            among,
            key=lambda name: math.inf if name in excluded else seconds.get(name, math.inf),
        )

    def cheapest(self, lane: Lane, names: Sequence[str]) -> str:
        """Return which of these processors takes the fewest unit-seconds; on a tie the first."""
        if len(names) == 1:
            return names[0]
        seconds, widths = lane.seconds, self._state.widths
        if lane.cheaper:
            seconds = self._started_s(lane)
        best, least = names[0], math.inf
        for name in names:
            cost = seconds[name] * widths[name]
            if cost < least:
                best, least = name, cost
        return best

    def cheapest_idle(self, lane: Lane) -> str:
        """Return which idle processor takes the fewest unit-seconds for a lane; empty if none.

        It is `cheapest` of `idle_runners`; where there are many processors, alike ones are looked
        at together.
        """
        state = self._state
        if not self.alike or not lane.is_open or lane.cheaper:
            able = self.idle_runners(lane)
            return self.cheapest(lane, able) if able else ""
        seconds, least, best = lane.seconds, math.inf, ""
        for alike in self.alike:
            least_s = alike.least_s(seconds)
            if least_s * alike.width < least:
                name = alike.free(seconds, state.used, least_s)
                if name and seconds[name] * alike.width < least:
                    best, least = name, seconds[name] * alike.width
        return best

    def costs_of(self, lane: Lane) -> dict[str, float]:
        """Return the unit-seconds by processor in service that can run a lane's requests."""
        widths = self._state.widths
        return {n: s * widths[n] for n, s in self.resident_s(lane).items()}

    def running(self) -> Collection[Execution]:
        """The executions that run now, but for those on express processors."""
        state = self._state
        if state.preempting is None or not state.preempting.running:
            return state.running.values()
        return [e for n, e in state.running.items() if n not in state.preempting.running]

    def brief_runs(self) -> Iterator[Execution]:
        """Iterate over the executions of models that are brief where they run (`Lane.brief_on`)."""
        requests = self._state.requests
        for execution in self.running():
            first = requests.get(execution.requests[0].id)
            if first is not None and execution.processor in first.lane.brief_on:
                yield execution

    def is_running(self, execution_id: int) -> bool:
        """Tell whether an execution runs, on whatever processor."""
        return execution_id in self._state.running

    def running_fork_of(self, execution_id: int) -> RunningFork | None:
        """Return the two executions of a request of which this is one; None for most."""
        return self._state.running_forks.get(execution_id)

    def units_free_at(self) -> dict[str, float]:
        """Return when each busy unit should be free; units that are not listed are free now.

        An execution that overran its estimate is expected to need as long again as it is late: it
        never looks finished while it runs. What overlays it delays it.
        """
        state, now = self._state, self.now
        express, units_of = state.preempting, state.units_of
        free: dict[str, float] = {}
        for execution in state.running.values():
            end = execution.started_s + execution.expected_s
            if express is not None:
                end += express.delay_s(execution.id, now)
            if end <= now:
                end = now + max(now - end, _LEAST_OVERRUN_S)
            for unit in units_of[execution.processor]:
                free[unit] = end
        return free

    def lookahead(self) -> Lookahead:
        """Return when each processor will be free, to plan and to reserve on."""
        state = self._state
        free_s = self.free_s(self.units_free_at())
        return Lookahead(self.now, free_s, state.neighbours, self.residency(), self._riders)

    def free_s(self, free_at: Mapping[str, float]) -> dict[str, float]:
        """Return when each processor in service is free, given when each busy unit is."""
        now = self.now
        return {
            name: max([free_at.get(unit, now) for unit in processor.units])
            for name, processor in self._state.in_service.items()
        }

    def is_hopeless(self, lane: Lane, request: Request) -> bool:
        """Tell whether a request may be dropped and no processor could still meet its deadline.

        Where a processor must change to its model first, the time of that counts. So does what
        cheaper variants would take.
        """
        if request.on_late is not _DROP or request.deadline_s == math.inf:
            return False
        held, best = self._state.residency, math.inf
        for way in (lane, *lane.cheaper):
            seconds = self.resident_s(way)
            if held.costs:
                seconds = held.added_to(seconds, way.variant)
            best = min(best, min(seconds.values(), default=math.inf))
        return math.isfinite(best) and self.now + best > request.deadline_s


def _first(lanes: Iterable[Lane]) -> Lane:
    """Return the lane whose head comes first; there must be one. `min` with a key is slower."""
    first: Lane | None = None
    least: Any = None
    for lane in lanes:
        entry = lane.heap[0]  # (rank, id, request): ids differ, so requests are never compared
        if first is None or entry < least:
            first, least = lane, entry
    assert first is not None
    return first


def _head_rank(found: tuple[Lane, list[str]]) -> Any:
    return found[0].head_rank


def _ranked(lane: Lane) -> Iterator[tuple[Any, Lane, Request]]:
    for rank, request in lane.ranked():
        yield rank, lane, request
