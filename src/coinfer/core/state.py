"""State: all that the dispatcher knows. Only its parts change it; policies see a `View`."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import heappush
from types import MappingProxyType

from coinfer.core.commands import Execution
from coinfer.core.estimates import Estimates
from coinfer.core.express import ExpressProcessors
from coinfer.core.fork_routes import ForkRoutes
from coinfer.core.lane import Lane, LaneKey
from coinfer.core.offer import Offer
from coinfer.core.progress import Progress
from coinfer.core.request import Request
from coinfer.core.routes import Routes, RouteSeconds, Step
from coinfer.core.running_fork import RunningFork
from coinfer.core.swaps import Swaps
from coinfer.errors import ConfigurationError, PolicyError
from coinfer.machine.processor import Processor, ordinary, overlaid_units
from coinfer.machine.profile import Profile
from coinfer.machine.span import Fork, Span

__all__ = ["State"]

_MOST_HELD_UP = 0.5
"""An execution that was held up for a larger share of its time teaches nothing."""

_MOST_IDLE = 1024
"""Of so many combinations of units in use it is remembered which processors are idle."""

_NO_UNITS: frozenset[str] = frozenset()

_new = tuple.__new__
"""Makes what every step needs: half the price of calling the class of a named tuple."""

_NO_SWAPS: Mapping[str, float] = MappingProxyType({})


class State:
    """Processors, models, waiting and running work.

    Attributes:
        processors: All ordinary ones, by name, in the order of preference.
        in_service: Those of them that work.
        express: The express processors and what they hold up; None if there are none.
        units_of: Compute units by processor; none for an express one.
        widths: Number of compute units by processor.
        units: Number of unit subgraphs per loaded variant. As all that is known of a variant, it is
            kept by the variant's name; the original has the name of its model.
        forks: The pairs of spans that may run at the same time, by loaded variant that has some.
            None are used where there are express processors: they would preempt one half.
        leaving: Models that are being unloaded, with the number of their unanswered requests.
        requests: Progress of every request that is not answered yet, by id.
        waiting: The waiting requests in the order in which they began to wait.
        lanes: The lanes that are not empty, in the order in which they filled.
        running: Executions by id.
        offered: By execution, the offer that it was started from. What starts from a plain lane has
            none: nothing was settled.
        running_forks: By id of each of its two executions, the requests that run in two.
        swaps: Which models the processors hold that can hold only one.
        used: The compute units that executions occupy, a bit each.
        all_units: Every compute unit of every processor, a bit each.
        neighbours: By processor, those that share a unit with it, itself included.
        estimates: Expected service times.
    """

    __slots__ = (
        "_all_lanes",
        "_bits_of",
        "_entrances",
        "_idle",
        "_routes",
        "all_units",
        "estimates",
        "express",
        "forks",
        "in_service",
        "lanes",
        "leaving",
        "neighbours",
        "offered",
        "processors",
        "requests",
        "running",
        "running_forks",
        "swaps",
        "units",
        "units_of",
        "used",
        "waiting",
        "widths",
    )

    def __init__(self, processors: Sequence[Processor]) -> None:
        _check_processors(processors)
        has_express = bool(overlaid_units(processors))
        self.express = ExpressProcessors(processors) if has_express else None
        self.widths = {p.name: len(p.units) for p in processors}
        self.units_of = {p.name: _NO_UNITS if p.overlays else p.units for p in processors}
        processors = ordinary(processors)
        self.processors: Mapping[str, Processor] = {p.name: p for p in processors}
        self.in_service: dict[str, Processor] = dict(self.processors)
        bits = {unit: 1 << at for at, unit in enumerate(_all_units(processors))}
        self._bits_of = {
            name: sum(bits[unit] for unit in units) for name, units in self.units_of.items()
        }
        self.all_units = sum(bits.values())
        self.neighbours: Mapping[str, tuple[str, ...]] = {
            p.name: tuple(q.name for q in processors if p.excludes(q)) for p in processors
        }
        self.units: dict[str, int] = {}
        self.forks: dict[str, tuple[Fork, ...]] = {}
        self.leaving: dict[str, int] = {}
        self.requests: dict[int, Progress] = {}
        self.waiting: OrderedDict[int, Request] = OrderedDict()
        self.lanes: dict[Lane, None] = {}
        self.running: dict[int, Execution] = {}
        self.offered: dict[int, Offer] = {}
        self.running_forks: dict[int, RunningFork] = {}
        self.swaps = Swaps()
        self.used = 0
        self._idle: dict[int, tuple[str, ...]] = {}
        self.estimates = Estimates()
        self._all_lanes: dict[LaneKey, Lane] = {}
        self._entrances: dict[tuple[str, int, int, int], Lane] = {}
        self._routes: dict[tuple[str, int, int, tuple[str, ...]], Routes] = {}

    def add(self, request: Request, queue: int = 0) -> Progress:
        """Take in a request that has arrived, for one of the policy's queues."""
        key = (request.model, request.batch, queue, request.shape)
        entrance = self._entrances.get(key)
        if entrance is None:
            entrance = self.lane(
                LaneKey(request.model, 0, request.batch, queue=queue, shape=request.shape)
            )
            self._entrances[key] = entrance
        progress = self.requests[request.id] = Progress(request, entrance)
        return progress

    def lane(self, key: LaneKey) -> Lane:
        """Return the lane of a key; there is one each."""
        lane = self._all_lanes.get(key)
        if lane is None:
            lane = self._all_lanes[key] = Lane(key)
            self._equip(lane)
        return lane

    def _equip(self, lane: Lane) -> None:
        """Give a lane what it takes to the end of its model, on the processors that there are."""
        variant, position, batch, shape = (
            lane.variant,
            lane.key.position,
            lane.key.batch,
            lane.key.shape,
        )
        units = self.units[variant]
        lane.rest = Span(position, units - 1)
        lane.routes = lane.row = None
        lane.is_served = False
        if units == 1:
            lane.seconds = lane.row = self.estimates.row(variant, lane.rest, batch, shape)
        elif position >= units:  # the model was replaced by one of fewer units
            lane.seconds = {}
        else:
            lane.routes = self._ways(variant, batch, shape, lane.excluded)
            lane.seconds = RouteSeconds(lane.routes, position)
            lane.is_plain = False
            return  # whether it is open has not changed
        self._mark(lane)

    def _mark(self, lane: Lane) -> None:
        """Update `is_open` and `is_plain`, which select the fast ways to start."""
        lane.is_open = not lane.excluded and not lane.ready_s
        lane.is_plain = lane.is_open and lane.row is not None and not self.swaps.costs

    def hold_back(self, lane: Lane, ready_s: Mapping[str, float]) -> None:
        """Let a lane start on processors from these moments on only; it stays visible."""
        lane.ready_s = ready_s
        self._mark(lane)

    def step(self, lane: Lane, processor: str, last: int | None = None, batch: int = 0) -> Step:
        """Return what a processor runs next of a lane.

        Args:
            lane: The lane.
            processor: The processor, busy or idle.
            last: Last unit of the span; by default the processor's best way to the end decides.
            batch: Samples; by default those of one request.

        Raises:
            PolicyError: the processor cannot run it, or nothing could run what follows.
        """
        span, routes, batch = lane.rest, lane.routes, batch or lane.key.batch
        if last is not None:
            span = _new(Span, (span.first, last))
        elif routes is not None and processor in lane.seconds:
            step = routes.step(span.first, processor)
            if batch == lane.key.batch:
                return step
            span = step.span
        if routes is not None and not routes.leads_on(span):
            raise PolicyError(f"no processor in service can run {lane.model!r} after {span}")
        seconds = self.estimates.row(lane.variant, span, batch, lane.key.shape).get(processor)
        if seconds is None:
            raise PolicyError(f"processor {processor!r} cannot run {span} of {lane.model!r}")
        return _new(Step, (span, processor, seconds))

    def _ways(self, variant: str, batch: int, shape: int, excluded: frozenset[str]) -> Routes:
        allowed = tuple(name for name in self.in_service if name not in excluded)
        key = (variant, batch, shape, allowed)
        routes = self._routes.get(key)
        if routes is None:
            spans = self.estimates.spans(variant)
            rows = {span: self.estimates.row(variant, span, batch, shape) for span in spans}
            routes = self._routes[key] = self._made(variant, rows, allowed)
        return routes

    def _made(
        self, variant: str, rows: Mapping[Span, Mapping[str, float]], allowed: Sequence[str]
    ) -> Routes:
        routes = Routes(self.units[variant], rows, allowed)
        forks = self.forks.get(variant)
        if forks:
            forked = ForkRoutes(self.units[variant], rows, allowed, forks, self.neighbours)
            routes.forked = forked if forked.has_forks else None
        return routes

    def observed(self, execution: Execution, batch: int) -> None:
        """Tell the routes of a model of several units that the estimate of an execution changed."""
        _, variant, span, processor, *_ = execution
        shape = execution.requests[0].shape
        seconds = self.estimates.expected_s(variant, processor, span, batch, shape)
        if seconds is not None:
            for (of, size, sizes, _), routes in self._routes.items():
                if of == variant and size == batch and sizes == shape:
                    routes.observed(span, processor, seconds)

    def take_out(self, processor: str) -> bool:
        """Take a processor out of service; tell whether it was in service."""
        if self.express is not None and processor in self.express.processors:
            return self.express.in_service.pop(processor, None) is not None
        if self.in_service.pop(processor, None) is None:
            return False
        self._idle.clear()
        self._reroute()
        return True

    def put_back(self, processor: str) -> None:
        """Put a processor back into service, in its old place."""
        express = self.express
        if express is not None and processor in express.processors:
            back = {processor, *express.in_service}
            express.in_service = {n: p for n, p in express.processors.items() if n in back}
            return
        back = {processor, *self.in_service}
        self.in_service = {n: p for n, p in self.processors.items() if n in back}
        self._idle.clear()
        self._reroute()

    def _reroute(self) -> None:
        """Let the lanes of models of several units use the processors that are in service now."""
        self._routes.clear()
        for lane in self._all_lanes.values():
            lane.is_served = False
            if lane.routes is not None:
                self._equip(lane)

    def enqueue(self, progress: Progress, rank: object) -> None:
        """Let a request wait in its lane."""
        request, lane = progress.request, progress.lane
        number = request.id
        heappush(lane.heap, (rank, number, request))  # as `lane.push`, without a call
        self.lanes[lane] = None
        self.waiting[number] = request
        progress.waits = True

    def dequeue(self, progress: Progress) -> None:
        """Take a waiting request out of its lane."""
        lane, request_id = progress.lane, progress.request.id
        del self.waiting[request_id]
        progress.waits = False
        if lane.remove(request_id):
            del self.lanes[lane]
            if lane.is_rare:
                # Such lanes are many and seldom used again; one more is made when it is needed.
                del self._all_lanes[lane.key]

    def occupy(self, execution: Execution) -> None:
        """Note that an execution runs."""
        self.running[execution.id] = execution
        if self.swaps.costs:
            self.swaps.hold(execution.processor, execution.variant)
        self.used |= self._bits_of[execution.processor]
        if self.express is not None:
            self.express.began(execution, self.unit_user())

    def release(self, execution: Execution, now: float) -> None:
        """Note that an execution no longer runs."""
        del self.running[execution.id]
        if self.offered:
            self.offered.pop(execution.id, None)
        self.used ^= self._bits_of[execution.processor]
        if self.express is not None:
            self.express.ended(execution, now)

    def unit_user(self) -> dict[str, int]:
        """Return which execution occupies a compute unit of an ordinary processor."""
        units_of = self.units_of
        return {
            unit: number
            for number, execution in self.running.items()
            for unit in units_of[execution.processor]
        }

    def own_s(self, execution: Execution, service_s: float) -> float:
        """Return the seconds that an execution took without the load before it."""
        offer = self.offered.get(execution.id)
        return service_s if offer is None else max(0.0, service_s - offer.load_s)

    def delay_s(self, execution: Execution, now: float) -> float:
        """Seconds by which an execution will end later than its estimate for what overlays it."""
        return 0.0 if self.express is None else self.express.delay_s(execution.id, now)

    def learn(self, execution: Execution, batch: int, service_s: float, now: float) -> None:
        """Correct the estimate of an execution that ends now, but not for what held it up."""
        variant, span, processor = execution.variant, execution.span, execution.processor
        shape, express = execution.requests[0].shape, self.express
        if express is None:
            self.estimates.observe(variant, processor, span, batch, service_s, shape)
        elif processor in express.processors:
            express.estimates.observe(variant, processor, span, batch, service_s, shape)
        else:
            held_up_s = express.held_up_s(execution.id, now)
            if held_up_s <= _MOST_HELD_UP * service_s:
                own_s = service_s - held_up_s
                self.estimates.observe(variant, processor, span, batch, own_s, shape)

    def clear_waiting(self) -> list[Progress]:
        """Take all waiting requests out of their lanes without comparing any ranks."""
        everyone = [self.requests[request_id] for request_id in self.waiting]
        for progress in everyone:
            progress.waits = False
        self.waiting.clear()
        self.lanes.clear()
        self._all_lanes.clear()
        self._entrances.clear()
        self._routes.clear()
        return everyone

    def add_model(
        self,
        model: str,
        units: int,
        profile: Profile,
        forks: tuple[Fork, ...] = (),
        swap_s: Mapping[str, float] = _NO_SWAPS,
    ) -> None:
        """Take in a model, or replace its profile."""
        self.units[model] = units
        self.swaps.add(model, swap_s)
        self.forks.pop(model, None)
        if forks and self.express is None:
            self.forks[model] = forks
        self.leaving.pop(model, None)
        if self.express is not None:
            self.express.add_model(model, profile)
            theirs = self.express.processors
            profile = Profile({k: entry for k, entry in profile if k.processor not in theirs})
        self.estimates.add(model, profile)
        self._routes = {k: routes for k, routes in self._routes.items() if k[0] != model}
        for lane in self._all_lanes.values():
            if lane.model == model:
                self._equip(lane)
            else:
                self._mark(lane)

    def forget_model(self, model: str) -> None:
        """Remove every trace of a model that has no request left."""
        self.units.pop(model, None)
        self.forks.pop(model, None)
        self.swaps.forget(model)
        self.leaving.pop(model, None)
        self.estimates.remove(model)
        if self.express is not None:
            self.express.estimates.remove(model)
        self._all_lanes = {k: lane for k, lane in self._all_lanes.items() if k.model != model}
        self._entrances = {k: lane for k, lane in self._entrances.items() if k[0] != model}
        self._routes = {k: routes for k, routes in self._routes.items() if k[0] != model}
        for lane in self._all_lanes.values():
            self._mark(lane)

    def idle(self) -> tuple[str, ...]:
        """Return the processors in service all of whose units are free."""
        used = self.used
        idle = self._idle.get(used)
        if idle is None:
            if len(self._idle) == _MOST_IDLE:
                self._idle.clear()
            bits_of = self._bits_of
            idle = tuple([name for name in self.in_service if not bits_of[name] & used])
            self._idle[used] = idle
        return idle

    def can_run(self, lane: Lane, processor: str) -> bool:
        """Tell whether a processor in service can run the next step of a lane's requests."""
        return (
            processor in lane.seconds
            and processor in self.in_service
            and processor not in lane.excluded
        )

    def has_runner(self, lane: Lane) -> bool:
        """Tell whether processors in service can bring a lane's requests to their end."""
        if not lane.is_served:
            lane.is_served = any(self.can_run(lane, name) for name in self.in_service)
        return lane.is_served

    def has_way(self, model: str, names: Collection[str]) -> bool:
        """Tell whether these processors alone can bring a fresh request of a model to its end."""
        units = self.units[model]
        if units == 1:
            return not self.estimates.row(model, Span(), 1).keys().isdisjoint(names)
        rows = {span: self.estimates.row(model, span, 1) for span in self.estimates.spans(model)}
        return Routes(units, rows, tuple(names)).rest_s(0) < math.inf

    def serve_more(self, names: Collection[str], fewer: Collection[str]) -> bool:
        """Tell whether some model has a way to its end on `names`, but none on `fewer` of them."""
        return any(self.has_way(m, names) and not self.has_way(m, fewer) for m in self.units)

    def check(self) -> None:
        """Assert the invariants: every request is in one place, every unit has one user."""
        for lane in self.lanes:
            lane.check()
            assert len(lane), f"empty lane {lane.key} is listed"
        in_lanes = sum(len(lane) for lane in self.lanes)
        assert in_lanes == len(self.waiting), "lanes and waiting list disagree"
        for request_id, progress in self.requests.items():
            waits = request_id in self.waiting
            runs = progress.execution is not None
            assert waits != runs, f"request {request_id}: waiting {waits}, running {runs}"
            assert waits == progress.waits, f"request {request_id}: waits"
            assert not waits or progress.lane in self.lanes, f"request {request_id}: lane"
            if progress.execution is not None:
                executed = self.running[progress.execution].requests
                assert progress.request in executed, f"request {request_id} not in its execution"
        for number, execution in self.running.items():
            for request in execution.requests:
                runs_in = self.requests[request.id].execution
                assert runs_in == number or number in self.running_forks, (
                    f"{number}: {request.id} is not"
                )
        assert set(self.waiting) <= set(self.requests), "an answered request still waits"
        self._check_units()
        self._check_routes()
        self._check_splits()
        self._check_offers()
        if self.express is not None:
            self.express.check(self.running, self.unit_user())

    def _check_offers(self) -> None:
        """Assert that what runs is what was offered."""
        assert self.offered.keys() <= self.running.keys(), "an offer of what has ended"
        for number, execution in self.running.items():
            offer = self.offered.get(number)
            if offer is None:
                if self.express is None or number not in self.express.running:
                    assert len(execution.requests) == 1, f"execution {number}: riders, not offered"
                    assert not execution.span.first, f"execution {number}: a part, not offered"
                continue
            head, *riders = execution.requests
            assert head.model == offer.lane.model, f"execution {number}: another model"
            assert tuple(riders) == offer.riders, f"execution {number}: other riders"
            runs = execution.variant, execution.span, execution.processor, execution.expected_s
            offered = offer.variant, offer.span, offer.processor, offer.expected_s
            assert runs == offered, f"execution {number}: {runs} runs, {offered} was offered"
            assert offer.ready_s <= execution.started_s, f"execution {number}: too early"

    def _check_routes(self) -> None:
        for lane in self._all_lanes.values():
            is_open, is_plain = lane.is_open, lane.is_plain
            self._mark(lane)
            assert (lane.is_open, lane.is_plain) == (is_open, is_plain), f"lane {lane.key}: marks"
        for lane in self._all_lanes.values():
            able = any(self.can_run(lane, name) for name in self.in_service)
            assert able or not lane.is_served, f"lane {lane.key}: nothing serves it"
            assert (lane.routes is None) == (
                self.units[lane.model] == 1 or lane.key.position >= self.units[lane.model]
            ), f"lane {lane.key}: routes"
        for (model, batch, shape, allowed), routes in self._routes.items():
            assert set(allowed) <= self.in_service.keys(), f"{model}: a lost processor has routes"
            rows = {
                s: self.estimates.row(model, s, batch, shape) for s in self.estimates.spans(model)
            }
            anew = self._made(model, rows, allowed)
            assert (routes.forked is None) == (anew.forked is None), f"{model}: forks"
            for position in range(routes.units):
                assert routes.seconds(position) == anew.seconds(position), f"{model}: {position}"
                if routes.forked is not None and anew.forked is not None:
                    known_s, right_s = routes.forked.rest_s(position), anew.forked.rest_s(position)
                    assert known_s == right_s, f"{model}: {position}, with forks"

    def _check_splits(self) -> None:
        for number, split in self.running_forks.items():
            assert number in split.running, f"execution {number} of a split has ended"
            assert split.progress.execution in split.running, "a split request runs elsewhere"
            execution = self.running[number]
            is_left = number == split.left
            assert execution.requests == (split.progress.request,), "others are split along"
            assert execution.span == (split.fork.left if is_left else split.fork.right), "its span"

    def _check_units(self) -> None:
        used: dict[str, int] = {}
        for execution in self.running.values():
            for unit in self.units_of[execution.processor]:
                assert unit not in used, f"unit {unit} is used twice"
                used[unit] = execution.id
        assert used == self.unit_user(), f"units: {used} != {self.unit_user()}"
        bits = sum(self._bits_of[execution.processor] for execution in self.running.values())
        assert bits == self.used, f"units in use: {bits:b} != {self.used:b}"
        alone = [n for n, p in self.in_service.items() if p.units.isdisjoint(used)]
        assert alone == list(self.idle()), f"idle: {alone} != {self.idle()}"


def _all_units(processors: Iterable[Processor]) -> list[str]:
    return sorted(frozenset[str]().union(*(p.units for p in processors)))


def _check_processors(processors: Sequence[Processor]) -> None:
    names = [p.name for p in processors]
    for p in processors:
        if names.count(p.name) > 1:
            raise ConfigurationError(f"two processors are called {p.name!r}; rename one")
        if not p.units:
            raise ConfigurationError(f"processor {p.name!r} has no compute unit; give it one")
