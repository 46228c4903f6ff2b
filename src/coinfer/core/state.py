"""State: all that the dispatcher knows. Only its parts change it; policies see a `View`."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappush

from coinfer.core.alike import Alike, alike_among
from coinfer.core.commands import Command, Execution
from coinfer.core.estimates import Estimates
from coinfer.core.events import FusedLoaded, LoadedVariant, ModelLoaded
from coinfer.core.express import ExpressProcessors
from coinfer.core.failures import Failures
from coinfer.core.fusing import Fused, Fusions
from coinfer.core.lane import Lane, LaneKey
from coinfer.core.offer import Offer
from coinfer.core.progress import Progress
from coinfer.core.request import Request
from coinfer.core.residency import Residency
from coinfer.core.routes import ForkRoutes, Routes, RouteSeconds, Step
from coinfer.core.running_fork import RunningFork
from coinfer.errors import ConfigurationError, PolicyError
from coinfer.machine.batching import Batching
from coinfer.machine.processor import Processor, ordinary, overlaid_units
from coinfer.machine.profile import Profile
from coinfer.machine.span import Fork, Span
from coinfer.machine.variant_use import Use

__all__ = ["State"]


_MOST_IDLE = 1024
"""Of so many combinations of units in use it is remembered which processors are idle."""

_MUCH_LONGER = 2.0
"""Runs do not take turns where they take more times what they take where they are fastest."""

_NO_UNITS: frozenset[str] = frozenset()

_new = tuple.__new__
"""Makes what every step needs: half the price of calling the class of a named tuple."""


@dataclass(slots=True, eq=False)
class State:
    """Processors, models, waiting and running work.

    Attributes:
        machine: Every processor, express ones included.
        now: The moment of the event that is being handled, in the driver's seconds; it never runs
            backwards.
        commands: What is to be done because of it, in order; a fresh list for every event.
        processors: All ordinary ones, by name, in the order of preference.
        in_service: Those of them that work.
        express: The express processors and what they hold up; None if there are none.
        preempting: The same while something runs there or was held up and still runs; None else.
        units_of: Compute units by processor; none for an express one.
        widths: Number of compute units by processor.
        wakes: Seconds that it takes to wake another thread, by ordinary processor where it matters.
        variants: By loaded model, the names of its variants, the most accurate first: the original,
            which has the name of the model.
        uses: When a variant serves, of those that are no original.
        units: Number of unit subgraphs per loaded variant. As all that is known of a variant, it is
            kept by the variant's name.
        forks: The pairs of spans that may run at the same time, by loaded variant that has some.
        batchings: How far requests may share executions, by loaded variant where they may.
        fusions: The variants that answer several models in one run.
        leaving: Models that are being unloaded, with the number of their unanswered requests.
        requests: Progress of every request that is not answered yet, by id.
        failed: Of those, what was run of them alone and failed.
        failures: Counts of the runs that failed.
        waiting: The waiting requests in the order in which they began to wait.
        lanes: The lanes that are not empty, in the order in which they filled.
        unready: Those that are not empty either, but wait for something to be loaded: no policy
            sees them.
        running: Executions by id.
        offered: By execution, the offer that it was started from. What starts from a plain lane has
            none: nothing was settled.
        running_forks: By id of each of its two executions, the requests that run in two.
        residency: What is loaded where.
        used: The compute units that executions occupy, a bit each.
        all_units: Every compute unit of every processor, a bit each.
        bits_of: By processor, those of `units_of`, a bit each.
        neighbours: By processor, those that share a unit with it, itself included.
        estimates: Expected service times.
        routes: Ways of a variant to its end on allowed processors: by its name, the samples and
            sizes of requests, and the processors. They follow the estimates.
        alike: Of many processors in service, those that are alike together; empty if there are few.
        is_complete: Whether all processors are in service, and no model was measured on others.
        has_delays: Whether any model was ever loaded whose requests are held back for some time.
    """

    machine: Sequence[Processor]
    now: float = field(default=-math.inf, init=False)
    commands: list[Command] = field(default_factory=list, init=False)
    processors: Mapping[str, Processor] = field(init=False)
    in_service: dict[str, Processor] = field(init=False)
    express: ExpressProcessors | None = field(default=None, init=False)
    preempting: ExpressProcessors | None = field(default=None, init=False)
    units_of: Mapping[str, frozenset[str]] = field(init=False)
    widths: Mapping[str, int] = field(init=False)
    wakes: Mapping[str, float] = field(init=False)
    variants: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False)
    uses: dict[str, Use] = field(default_factory=dict, init=False)
    units: dict[str, int] = field(default_factory=dict, init=False)
    forks: dict[str, tuple[Fork, ...]] = field(default_factory=dict, init=False)
    batchings: dict[str, Batching] = field(default_factory=dict, init=False)
    fusions: Fusions = field(default_factory=Fusions, init=False)
    leaving: dict[str, int] = field(default_factory=dict, init=False)
    requests: dict[int, Progress] = field(default_factory=dict, init=False)
    failed: dict[int, list[Execution]] = field(default_factory=dict, init=False)
    failures: Failures = field(default_factory=Failures, init=False)
    waiting: OrderedDict[int, Request] = field(default_factory=OrderedDict, init=False)
    lanes: dict[Lane, None] = field(default_factory=dict, init=False)
    unready: dict[Lane, None] = field(default_factory=dict, init=False)
    running: dict[int, Execution] = field(default_factory=dict, init=False)
    offered: dict[int, Offer] = field(default_factory=dict, init=False)
    running_forks: dict[int, RunningFork] = field(default_factory=dict, init=False)
    residency: Residency = field(default_factory=Residency, init=False)
    used: int = field(default=0, init=False)
    all_units: int = field(init=False)
    neighbours: Mapping[str, tuple[str, ...]] = field(init=False)
    estimates: Estimates = field(default_factory=Estimates, init=False)
    bits_of: Mapping[str, int] = field(init=False)
    alike: tuple[Alike, ...] = field(init=False)
    is_complete: bool = field(default=True, init=False)
    has_delays: bool = field(default=False, init=False)
    _strange: bool = field(default=False, init=False)
    _idle: dict[int, tuple[str, ...]] = field(default_factory=dict, init=False)
    _all_lanes: dict[LaneKey, Lane] = field(default_factory=dict, init=False)
    _entrances: dict[tuple[str, int, int, int], Lane] = field(default_factory=dict, init=False)
    routes: dict[tuple[str, int, int, tuple[str, ...]], Routes] = field(
        default_factory=dict, init=False
    )
    # By model, also variants of before it was loaded anew: what is under way goes on in them.
    _known: dict[str, set[str]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Note all that the processors tell.

        Raises:
            ConfigurationError: two have one name, or one has no unit.
        """
        _check_processors(self.machine)
        if overlaid_units(self.machine):
            self.express = ExpressProcessors(self.machine)
        self.widths = {p.name: len(p.units) for p in self.machine}
        self.units_of = {p.name: _NO_UNITS if p.overlays else p.units for p in self.machine}
        plain = ordinary(self.machine)
        self.processors = {p.name: p for p in plain}
        self.in_service = dict(self.processors)
        self.wakes = {p.name: p.wake_s for p in plain if p.wake_s > 0}
        units = sorted(_NO_UNITS.union(*self.units_of.values()))
        places = {unit: at for at, unit in enumerate(units)}
        self.bits_of = {
            name: sum(1 << places[unit] for unit in mine) for name, mine in self.units_of.items()
        }
        self.all_units = (1 << len(units)) - 1
        self.alike = alike_among(self.in_service, self.bits_of)
        self.neighbours = {p.name: tuple(q.name for q in plain if p.excludes(q)) for p in plain}

    def add(self, request: Request, queue: int = 0) -> Progress:
        """Take in a request that has arrived, for one of the policy's queues."""
        key = (request.model, request.batch, queue, request.shape)
        entrance = self._entrances.get(key)
        if entrance is None:
            entrance = self.entrance(request.model, request.batch, request.shape, queue)
        progress = self.requests[request.id] = Progress(request, entrance)
        return progress

    def entrance(self, model: str, batch: int = 1, shape: int = 0, queue: int = 0) -> Lane:
        """Return the lane in which fresh requests wait, perhaps none now."""
        key = (model, batch, queue, shape)
        entrance = self._entrances.get(key)
        if entrance is None:
            entrance = self.lane(LaneKey(model, 0, batch, queue=queue, shape=shape))
            self._entrances[key] = entrance
        return entrance

    def lane(self, key: LaneKey) -> Lane:
        """Return the lane of a key; there is one each."""
        lane = self._all_lanes.get(key)
        if lane is None:
            lane = self._all_lanes[key] = Lane(key)
            self._equip(lane)
        return lane

    def _equip(self, lane: Lane) -> None:
        """Give a lane what it takes to the end of its model, on the processors that there are."""
        if self.is_varied(lane):
            self._equip_varied(lane, self.variants[lane.model])
        else:
            self._equip_with(lane)

    def is_varied(self, lane: Lane) -> bool:
        """Tell whether several variants could serve what waits in a lane."""
        return not lane.key.variant and len(self.variants.get(lane.model, ())) > 1

    def _equip_varied(self, lane: Lane, names: Sequence[str]) -> None:
        """Let a lane show the most accurate variant that is wanted; keep the cheaper ones at hand.

        If nothing in service can run that, it shows the next one that something can: a cheaper
        one, since the request would be late for ever, or else a more accurate one.
        """
        ways = [Lane(lane.key._replace(variant=name)) for name in names]
        for way in ways:
            self._equip_with(way)
        always = [at for at, name in enumerate(names) if self.uses.get(name) is Use.ALWAYS]
        wanted = always[-1] if always else 0
        order = [*range(wanted, len(ways)), *reversed(range(wanted))]
        shown = next((at for at in order if self._can_serve(ways[at])), wanted)
        chosen = ways[shown]
        lane.variant, lane.rest, lane.seconds = chosen.variant, chosen.rest, chosen.seconds
        lane.routes, lane.batching, lane.fused = chosen.routes, chosen.batching, chosen.fused
        lane.row, lane.is_served = None, False
        lane.cheaper = tuple(ways[shown + 1 :])
        self._note_brief(lane)
        self._mark(lane)

    def _can_serve(self, lane: Lane) -> bool:
        return any(self.can_run(lane, name) for name in self.in_service)

    def _equip_with(self, lane: Lane) -> None:
        """Give a lane what its variant takes."""
        variant, position = lane.variant, lane.key.position
        batch, shape = lane.key.batch, lane.key.shape
        units = self.units[variant]
        lane.rest = Span(position, units - 1)
        lane.batching = self.batchings.get(variant)
        lane.fused = self.fused_of(lane) if self.fusions.of else ()
        lane.routes = lane.row = None
        lane.is_served, lane.cheaper = False, ()
        self._note_brief(lane)
        if units == 1:
            lane.seconds = lane.row = self.estimates.row(variant, lane.rest, batch, shape)
        elif position >= units:  # the model was replaced by one of fewer units
            lane.seconds = {}
        else:
            allowed = tuple(name for name in self.in_service if name not in lane.excluded)
            key = (variant, batch, shape, allowed)
            if key not in self.routes:
                self.routes[key] = self.new_routes(*key)
            lane.routes = self.routes[key]
            lane.seconds = RouteSeconds(lane.routes, position)
            lane.is_plain = lane.is_plain_alone = False
            lane.shares = lane.batching is not None
            return  # whether it is open has not changed
        self._mark(lane)

    def _note_brief(self, lane: Lane) -> None:
        """Note where a lane's model takes no longer, as measured, than waking another thread.

        Where its requests may share runs: alone, runs gain nothing by turns. Nowhere while
        something may have to be loaded first, or several variants may serve; nor where it takes
        much longer than elsewhere.
        """
        key, wakes, residency = lane.key, self.wakes, self.residency
        lane.brief_on = ()
        if (
            wakes
            and (lane.batching is not None or lane.fused)
            and not (lane.is_rare or lane.cheaper or residency.is_tight or residency.costs)
            and self.units[lane.variant] == 1
        ):
            measured = self.estimates.measured(lane.variant, lane.rest, key.batch, key.shape)
            most_s = _MUCH_LONGER * min(measured.values(), default=0.0)
            lane.brief_on = tuple(
                name
                for name, seconds in measured.items()
                if seconds <= wakes.get(name, -1.0) and seconds <= most_s
            )

    def _mark(self, lane: Lane) -> None:
        """Update `is_open` and what else selects the fast ways to start."""
        lane.is_open = not lane.excluded and not lane.ready_s
        lane.shares = lane.batching is not None or bool(lane.fused)
        lane.is_plain_alone = (
            lane.is_open
            and lane.row is not None
            and not self.residency.costs
            and not self.residency.is_tight
        )
        lane.is_plain = lane.is_plain_alone and not lane.shares

    def hold_back(self, lane: Lane, ready_s: Mapping[str, float]) -> None:
        """Let a lane start on processors from these moments on only; it stays visible."""
        lane.ready_s = ready_s
        self._mark(lane)

    def hide(self, lane: Lane) -> None:
        """Let no policy see a lane that waits for something to be loaded."""
        if self.lanes.pop(lane, self) is None:
            self.unready[lane] = None

    def show(self, lane: Lane) -> None:
        """Let policies see a lane again."""
        if self.unready.pop(lane, self) is None:
            self.lanes[lane] = None

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

    def new_routes(self, variant: str, batch: int, shape: int, allowed: tuple[str, ...]) -> Routes:
        """Make the routes of a variant on processors anew, from what is known of its times."""
        units, rows = self.units[variant], self.estimates.rows(variant, batch, shape)
        routes = Routes(units, rows, allowed)
        forks = self.forks.get(variant)
        if forks and not self.residency.is_tight:  # nobody sees to it that both sides are there
            forked = ForkRoutes(units, rows, allowed, forks, self.neighbours)
            routes.forked = forked if forked.has_forks else None
        return routes

    def take_out(self, processor: str) -> bool:
        """Take a processor out of service; tell whether it was in service."""
        if self._group(processor).in_service.pop(processor, None) is None:
            return False
        self._reroute()
        return True

    def put_back(self, processor: str) -> None:
        """Put a processor back into service, in its old place."""
        group = self._group(processor)
        back = {processor, *group.in_service}
        group.in_service = {n: p for n, p in group.processors.items() if n in back}
        self._reroute()

    def _group(self, processor: str) -> State | ExpressProcessors:
        """Return who has a processor: the express ones are kept apart."""
        express = self.express
        return self if express is None or processor not in express.processors else express

    def _reroute(self) -> None:
        """Let the lanes of models of several units use the processors that are in service now."""
        self._idle.clear()
        self.routes.clear()
        self.alike = alike_among(self.in_service, self.bits_of)
        self.is_complete = len(self.in_service) == len(self.processors) and not self._strange
        for lane in self._all_lanes.values():
            lane.is_served = False
            if lane.routes is not None or self.is_varied(lane):
                self._equip(lane)

    def enqueue(self, progress: Progress, rank: object) -> None:
        """Let a request wait in its lane."""
        request, lane = progress.request, progress.lane
        number = request.id
        heappush(lane.heap, (rank, number, request))  # as `lane.push`, without a call
        if not self.unready or lane not in self.unready:
            self.lanes[lane] = None
        self.waiting[number] = request
        progress.waits = True

    def dequeue(self, progress: Progress) -> None:
        """Take a waiting request out of its lane."""
        lane, request_id = progress.lane, progress.request.id
        del self.waiting[request_id]
        progress.waits = False
        if lane.remove(request_id):
            if self.unready:
                self.unready.pop(lane, None)
            self.lanes.pop(lane, None)
            if lane.is_rare:
                # Such lanes are many and seldom used again; one more is made when it is needed.
                del self._all_lanes[lane.key]

    def occupy(self, execution: Execution) -> None:
        """Note that an execution runs."""
        self.running[execution.id] = execution
        residency = self.residency
        if residency.costs:
            residency.hold(execution.processor, execution.variant)
        if residency.places:
            residency.begin(execution.variant, execution.span, execution.processor)
        bits = self.bits_of[execution.processor]
        self.used |= bits
        if not bits:  # only those of express processors are none
            self.preempting = self.express
        if self.preempting is not None:
            self.preempting.began(execution, self.unit_user())

    def release(self, execution: Execution) -> None:
        """Note that an execution no longer runs."""
        del self.running[execution.id]
        if self.offered:
            self.offered.pop(execution.id, None)
        if self.residency.places:
            self.residency.end(execution.variant, execution.span, execution.processor)
        self.used ^= self.bits_of[execution.processor]
        if self.preempting is not None:
            self.preempting.ended(execution, self.now)
            if not self.preempting.is_active:
                self.preempting = None

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

    def delay_s(self, execution: Execution) -> float:
        """Seconds by which an execution will end later than its estimate for what overlays it."""
        return 0.0 if self.preempting is None else self.preempting.delay_s(execution.id, self.now)

    def count_retry(self, request_id: int, numbers: Container[int]) -> None:
        """Count those failed executions after which a request goes on.

        Args:
            request_id: The request; nothing is counted if it was answered.
            numbers: The executions of its last attempt.
        """
        for run in self.failed.get(request_id, ()):
            if run.id in numbers:
                self.failures.note_retry(run)

    def clear_waiting(self) -> list[Progress]:
        """Take all waiting requests out of their lanes without comparing any ranks."""
        everyone = [self.requests[request_id] for request_id in self.waiting]
        for progress in everyone:
            progress.waits = False
        self.waiting.clear()
        self.lanes.clear()
        self.unready.clear()
        self._all_lanes.clear()
        self._entrances.clear()
        self.routes.clear()
        return everyone

    def moved(self, lane: Lane, queue: int) -> Lane:
        """Return a lane as one of another queue, for requests of it that run.

        Nothing waits there, so one of those that are many is not kept.
        """
        key = lane.key._replace(queue=queue)
        if not lane.is_rare:
            return self.lane(key)
        found = self._all_lanes.get(key)
        if found is None:
            found = Lane(key)
            self._equip(found)
        return found

    def add_model(self, event: ModelLoaded) -> None:
        """Take in a model with its variants, or replace what is known of them."""
        model, units, profile, forks, swap_s, batching, others, places = event
        fields = units, profile, forks, swap_s, batching, places
        original = LoadedVariant(model, 0.0, Use.ALWAYS, *fields)
        others = tuple(sorted(others, key=lambda each: each.error))
        self.variants[model] = (model, *(each.name for each in others))
        self.uses |= {each.name: each.use for each in others}
        was_tight = self.residency.is_tight
        self.leaving.pop(model, None)
        for each in (original, *others):
            self._add_variant(each)
        known = self._known.setdefault(model, set())
        known.update(self.variants[model])
        self.routes = {k: routes for k, routes in self.routes.items() if k[0] not in known}
        for lane in self._all_lanes.values():
            if lane.model == model:
                lane.variant = lane.key.variant or model
                self._equip(lane)
            else:
                self._note_brief(lane)
                self._mark(lane)
        if was_tight != self.residency.is_tight:
            self.mark_lanes()

    def add_fused(self, event: FusedLoaded) -> None:
        """Take in a variant that answers several models, or replace it."""
        name, members, profile, places, handover_s = event
        was_tight = self.residency.is_tight
        self.units[name] = 1
        if self.express is not None:
            self.express.add_model(name, profile)
        self.estimates.add(name, profile)
        self.residency.add(name, {}, places)
        present = [model for model in members if model in self.variants]
        self.fusions.add(name, present, handover_s)
        self.settle_fused()
        if was_tight != self.residency.is_tight:
            self.mark_lanes()

    def settle_fused(self) -> None:
        """Tell the lanes which fused variants may serve them; give up what none can use."""
        for name in self.fusions.spent():
            self.residency.retire(name)
        for lane in self._all_lanes.values():
            lane.fused = self.fused_of(lane)
            self._note_brief(lane)
            self._mark(lane)

    def fused_of(self, lane: Lane) -> tuple[Fused, ...]:
        """Return the fused variants that may serve what waits in a lane: whole originals, fresh."""
        if lane.is_rare or lane.variant != lane.model or self.units[lane.variant] > 1:
            return ()
        return self.fusions.of.get(lane.model, ())

    def heads_of(self, fused: Fused, key: LaneKey) -> list[Lane]:
        """Return the lanes of members in which fresh requests wait that are as those of a key."""
        entrances, lanes = self._entrances, self.lanes
        batch, queue, shape = key.batch, key.queue, key.shape
        found = []
        for model in fused.members:
            lane = entrances.get((model, batch, queue, shape))
            if lane is not None and lane in lanes:
                found.append(lane)
        return found

    def _add_variant(self, variant: LoadedVariant) -> None:
        name, _, _, units, profile, forks, swap_s, batching, places = variant
        self.units[name] = units
        self.residency.add(name, swap_s, places)
        self.forks.pop(name, None)
        if forks:
            self.forks[name] = forks
        self.batchings.pop(name, None)
        if batching is not None:
            self.batchings[name] = batching
            self.has_delays |= batching.max_delay_s > 0
        if self.express is not None:
            self.express.add_model(name, profile)
            theirs = self.express.processors
            profile = Profile({k: entry for k, entry in profile if k.processor not in theirs})
        if any(key.processor not in self.processors for key in profile.entries):
            self._strange, self.is_complete = True, False
        self.estimates.add(name, profile, as_curve=batching is not None)

    def forget_model(self, model: str) -> None:
        """Remove every trace of a model that has no request left."""
        self.variants.pop(model, None)
        was_tight = self.residency.is_tight
        self.leaving.pop(model, None)
        for name in self._known.pop(model, ()):
            self._forget_variant(name)
        self._all_lanes = {k: lane for k, lane in self._all_lanes.items() if k.model != model}
        self._entrances = {k: lane for k, lane in self._entrances.items() if k[0] != model}
        for lane in self._all_lanes.values():
            self._note_brief(lane)
            self._mark(lane)
        if self.fusions.leave(model):
            self.settle_fused()
        if was_tight != self.residency.is_tight:
            self.mark_lanes()

    def _forget_variant(self, name: str) -> None:
        self.units.pop(name, None)
        self.uses.pop(name, None)
        self.forks.pop(name, None)
        self.batchings.pop(name, None)
        self.residency.forget(name)
        self.estimates.remove(name)
        if self.express is not None:
            self.express.estimates.remove(name)
        self.routes = {k: routes for k, routes in self.routes.items() if k[0] != name}

    def mark_lanes(self) -> None:
        """Look at all lanes anew: whether all that can be loaded is loaded has changed."""
        self._reroute()
        for lane in self._all_lanes.values():
            self._note_brief(lane)
            self._mark(lane)

    def idle(self) -> tuple[str, ...]:
        """Return the processors in service all of whose units are free."""
        used = self.used
        idle = self._idle.get(used)
        if idle is None:
            if len(self._idle) == _MOST_IDLE:
                self._idle.clear()
            bits_of = self.bits_of
            idle = tuple([name for name in self.in_service if not bits_of[name] & used])
            self._idle[used] = idle
        return idle

    def is_idle(self, processor: str) -> bool:
        """Tell whether a processor is in service and all of its units are free."""
        return processor in self.in_service and not self.bits_of[processor] & self.used

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
            lane.is_served = self._can_serve(lane)
        return lane.is_served

    def has_way(self, model: str, names: Collection[str]) -> bool:
        """Tell whether these processors alone can bring a fresh request of a model to its end."""
        allowed = tuple(names)
        for variant in self.variants[model]:
            routes = Routes(self.units[variant], self.estimates.rows(variant, 1, 0), allowed)
            if routes.rest_s(0) < math.inf:
                return True
        return False

    def serve_more(self, names: Collection[str], fewer: Collection[str]) -> bool:
        """Tell whether some model has a way to its end on `names`, but none on `fewer` of them."""
        return any(self.has_way(m, names) and not self.has_way(m, fewer) for m in self.variants)


def _check_processors(processors: Sequence[Processor]) -> None:
    names = [p.name for p in processors]
    for p in processors:
        if names.count(p.name) > 1:
            raise ConfigurationError(f"two processors are called {p.name!r}; rename one")
        if not p.units:
            raise ConfigurationError(f"processor {p.name!r} has no compute unit; give it one")
