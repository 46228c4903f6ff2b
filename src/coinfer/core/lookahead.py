"""Lookahead: when each processor will be free as a policy foresees it, and what follows from that.

Made for one decision, from what runs; what the policy reserves is added. Changes no state but the
guesses of `Routes`, which make the next lookahead faster and no other.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from coinfer.core.lane import Lane
from coinfer.core.offer import Offer, make_offer
from coinfer.core.request import Request
from coinfer.core.request_schedule import (
    EQUAL_S,
    RequestSchedule,
    better_schedule,
    first_schedule,
    schedule_alone,
    schedule_with_swaps,
)
from coinfer.core.residency import Residency
from coinfer.core.riders import Riders
from coinfer.core.routes import HANDOVER_S, Step
from coinfer.core.variants import MARGIN

__all__ = ["FinishBounds", "Lookahead"]


@dataclass(slots=True, eq=False)
class FinishBounds:
    """Bounds on when the next request of a lane finishes, and its schedule once that is known.

    Attributes:
        lane: The lane.
        served: What its variant takes: the lane, or one of `Lane.cheaper`.
        own: The step that was reserved for the request before, if any.
        latest_s: The best schedule finishes no later than this ...
        earliest_s: ... and no sooner than this.
        is_timed: Whether `latest_s` was computed since processors of `steps` were taken. If not,
            it is no less than what `Lookahead.time` finds.
        steps: Those that finish no later than `latest_s`: of the schedule, or a guess.
        schedule: The best schedule if `is_best`; else the first one, if it may be as good.
        is_looked_at: Whether the first schedule was made.
        is_best: Whether the best schedule is known.
        ready_s: When each processor can start something for the request; None: to be found out.
    """

    lane: Lane
    served: Lane
    own: Step | None
    latest_s: float = math.inf
    earliest_s: float = -math.inf
    is_timed: bool = True
    steps: tuple[Step, ...] = ()
    schedule: RequestSchedule | None = None
    is_looked_at: bool = False
    is_best: bool = False
    ready_s: Mapping[str, float] | None = None


@dataclass(slots=True, eq=False)
class Lookahead:
    """The schedules of waiting requests at a moment; requests of one lane share a schedule.

    If the first of a lane would be late by its own variant, it is the schedule of the most accurate
    one that is in time, or else of the one that is done first (`coinfer.core.variants`).

    A request for which a step was reserved before is scheduled without that step's time, which does
    not keep it from anything: `own` is this step.

    Attributes:
        now: The moment.
        ready_s: By processor in service, the moment when it can start something, what was reserved
            included.
    """

    now: float
    _free_s: Mapping[str, float]
    _neighbours: Mapping[str, Collection[str]]
    _held: Residency | None = None
    _riders: Riders | None = None
    ready_s: dict[str, float] = field(init=False)
    _bounds: dict[tuple[Lane, Step | None], FinishBounds] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Begin with nothing reserved."""
        self.ready_s = {**self._free_s}

    def schedule(self, lane: Lane, own: Step | None = None) -> RequestSchedule:
        """Return how the next request of a lane finishes soonest. Some way must lead to its end."""
        return self.best_schedule(self.bounds(lane, own))

    def latest_s(self, lane: Lane, own: Step | None = None) -> float:
        """Return a moment at which the schedule of a lane finishes at the latest, for less work."""
        bounds = self.bounds(lane, own)
        if not bounds.is_looked_at:
            self.look(bounds)
        return bounds.latest_s

    def bounds(self, lane: Lane, own: Step | None = None) -> FinishBounds:
        """Return what is known of the schedule of a lane, with a bound of when it finishes."""
        asked = (lane, own)
        bounds = self._bounds.get(asked)
        if bounds is None:
            served = self._served(lane) if lane.cheaper else lane
            bounds = self._bounds[asked] = FinishBounds(lane, served, own)
            routes = served.routes
            if routes is not None and self._held is None and lane.key.position in routes.guesses:
                bounds.steps = routes.guesses[lane.key.position]
                self.time(bounds)
            else:
                self.look(bounds)
        return bounds

    def forget(self, bounds: FinishBounds) -> None:
        """Forget these bounds: nobody will ask for them again."""
        del self._bounds[bounds.lane, bounds.own]

    def look(self, bounds: FinishBounds) -> None:
        """Make a schedule fast, which is perhaps the best, for a better bound."""
        if not bounds.is_timed:
            self.time(bounds)
        lane = bounds.served
        schedule, is_best = self._made(bounds)
        bounds.is_looked_at = True
        if schedule is None:
            return
        if lane is not bounds.lane:
            if schedule.steps[0].processor not in bounds.lane.seconds:
                self._serve_itself(bounds)
                self.look(bounds)
                return
            schedule = schedule._replace(variant=lane.variant)
        bounds.schedule, bounds.steps = schedule, schedule.steps
        if schedule.finish_s < bounds.latest_s:
            bounds.latest_s = schedule.finish_s
        bounds.is_best = is_best or schedule.finish_s - bounds.earliest_s <= EQUAL_S
        if lane.routes is not None:
            lane.routes.guesses[lane.key.position] = schedule.steps

    def best_schedule(self, bounds: FinishBounds) -> RequestSchedule:
        """Make sure that the best schedule is known, and return it."""
        if not bounds.is_looked_at:
            self.look(bounds)
        schedule = bounds.schedule
        if schedule is None or not bounds.is_best:
            lane = bounds.served
            routes, position = lane.routes, lane.key.position
            assert routes is not None  # a model of one unit has only one step, known to be best
            ready_s = bounds.ready_s or self._ready_for(bounds)
            schedule = better_schedule(
                routes, position, ready_s, self.now, schedule, bounds.latest_s
            )
            if lane is not bounds.lane:
                if schedule.steps[0].processor not in bounds.lane.seconds:
                    self._serve_itself(bounds)
                    return self.best_schedule(bounds)
                schedule = schedule._replace(variant=lane.variant)
            bounds.schedule, bounds.steps, bounds.is_best = schedule, schedule.steps, True
            routes.guesses[position] = schedule.steps
        bounds.latest_s = schedule.finish_s
        return schedule

    def _serve_itself(self, bounds: FinishBounds) -> None:
        """Put no cheaper variant in: as things are now it would start where its lane cannot."""
        bounds.served, bounds.steps, bounds.schedule = bounds.lane, (), None
        bounds.latest_s, bounds.earliest_s, bounds.is_timed = math.inf, -math.inf, True
        bounds.is_looked_at = bounds.is_best = False

    def good_schedule(self, bounds: FinishBounds) -> RequestSchedule:
        """Return a schedule that is perhaps not the best, for less work.

        It is the first one, or what was good at the last decision if that ends sooner now.
        """
        if not bounds.is_looked_at:
            self.look(bounds)
        schedule, routes = bounds.schedule, bounds.served.routes
        if schedule is not None:
            return schedule
        if routes is None or not bounds.steps or bounds.served is not bounds.lane:
            return self.best_schedule(bounds)
        steps = tuple(
            Step(span, name, routes.times[span.first][name][span.last - span.first])
            for span, name, _ in bounds.steps
        )
        ready_s = bounds.ready_s or self._ready_for(bounds)
        return RequestSchedule(steps, max(self.now, ready_s[steps[0].processor]), bounds.latest_s)

    def take(self, steps: Collection[Step]) -> None:
        """Count steps of requests that are on their way as taken, for all but those themselves."""
        ready_s = self.ready_s
        for _, processor, seconds in steps:
            if processor in ready_s:
                for name in self._neighbours[processor]:
                    if name in ready_s:
                        ready_s[name] += seconds
        self._bounds.clear()

    def offer(self, lane: Lane, step: Step, request: Request | None = None) -> Offer:
        """Return what would be offered for a step of a lane, given what is reserved.

        Args:
            lane: The lane.
            step: The step, of one request.
            request: Whose; by default the lane's first.
        """
        riders: tuple[Request, ...] = ()
        variant = ""
        if lane.shares and self._riders is not None:
            step, riders, variant = self._riders.join(lane, step, request)
        return make_offer(lane, step, self._held, riders, variant)

    def reserve(self, offer: Offer) -> None:
        """Count an offer as taken, after all that was counted on its processor before.

        Processors that share units with it cannot start anything before it is over. The riders of
        the offer need none of their own.
        """
        _, processor, variant, _, _, load_s, seconds, _, earliest_s = offer
        ready_s = self.ready_s
        until_s = ready_s[processor]
        if earliest_s > until_s:
            until_s = earliest_s
        until_s += seconds
        if self._held is not None:
            until_s += load_s
            self._held.hold(processor, variant)
        self._take_until(processor, until_s)

    def reserve_step(
        self, lane: Lane, step: Step, request: Request | None = None
    ) -> tuple[Request, ...]:
        """Reserve what is offered for a step of a lane's request; return its riders.

        It is `reserve(offer(lane, step))`, but makes no offer where that leaves nothing to settle.
        """
        if self._held is None and lane.is_open and not lane.shares:
            _, processor, seconds = step
            self._take_until(processor, self.ready_s[processor] + seconds)
            return ()
        offer = self.offer(lane, step, request)
        self.reserve(offer)
        return offer.riders

    def _take_until(self, processor: str, until_s: float) -> None:
        ready_s, later_s = self.ready_s, 0.0
        raised = set()
        for name in self._neighbours[processor]:
            before_s = ready_s.get(name, until_s)
            if before_s < until_s:
                raised.add(name)
                ready_s[name] = until_s
                later_s = max(later_s, until_s - before_s)
        # What a schedule does not use only got worse: the schedule stays what it is.
        for bounds in self._bounds.values():
            bounds.ready_s = None
            for step in bounds.steps:  # written out: of all that a decision does, most often
                if step[1] in raised:
                    self._delay(bounds, later_s)
                    break
            else:
                if bounds.schedule is None:
                    bounds.is_looked_at = False

    def _delay(self, bounds: FinishBounds, later_s: float) -> None:
        """Drop the schedule and keep its bounds: a processor gets ready later by up to so much."""
        if bounds.is_best and self._held is None:
            bounds.earliest_s = bounds.latest_s
        bounds.schedule = None
        bounds.is_looked_at = bounds.is_best = False
        if bounds.served.routes is None or self._held is not None:
            self.time(bounds)
        else:  # no end moves by more than what a start moves by
            bounds.latest_s += later_s + 2 * EQUAL_S
            bounds.is_timed = False

    def time(self, bounds: FinishBounds) -> None:
        """Compute when the known steps would finish."""
        routes = bounds.served.routes
        bounds.is_timed = True
        if routes is None or self._held is not None:  # the steps tell nothing: look at once
            bounds.latest_s = math.inf
            self.look(bounds)
            return
        ready_s = bounds.ready_s or self._ready_for(bounds)
        times, reached_s, end_s = routes.times, self.now, self.now
        for (first, last), name, _ in bounds.steps:  # one after another
            start_s = ready_s[name]
            if start_s < reached_s:
                start_s = reached_s
            end_s = start_s + times[first][name][last - first]
            reached_s = end_s + HANDOVER_S
        # As many steps may be added in another order: none of what is equal may look worse.
        bounds.latest_s = end_s + EQUAL_S

    def _made(self, bounds: FinishBounds) -> tuple[RequestSchedule | None, bool]:
        """Make a schedule fast, unless it is worse than a known one; tell if it is the best."""
        lane, held = bounds.served, self._held
        routes, ready_s = lane.routes, bounds.ready_s or self._ready_for(bounds)
        costs = {} if held is None else held.costs_of(lane.variant)
        if routes is not None and costs:
            return schedule_with_swaps(routes, lane.key.position, ready_s, costs, self.now), True
        if routes is not None:
            return first_schedule(routes, lane.key.position, ready_s, self.now, bounds.latest_s)
        excluded = lane.excluded
        seconds = {n: s for n, s in lane.seconds.items() if n in ready_s and n not in excluded}
        if lane is not bounds.lane:  # it starts where its lane can
            seconds = {n: s for n, s in seconds.items() if n in bounds.lane.seconds}
            if not seconds:
                return None, False
        if costs:
            ready_s = {name: at_s + costs.get(name, 0.0) for name, at_s in ready_s.items()}
        return schedule_alone(lane, seconds, ready_s), True

    def _served(self, lane: Lane) -> Lane:
        """Return what serves the first of a lane: itself, or one of its cheaper variants."""
        due_s = lane.heap[0][2].deadline_s if lane.heap else math.inf
        if due_s == math.inf:
            return lane
        soonest, least_s = lane, math.inf
        for way in (lane, *lane.cheaper):
            if self._free_s.keys().isdisjoint(way.seconds):
                continue
            schedule, _ = self._made(FinishBounds(lane, way, None))
            if schedule is None or schedule.steps[0].processor not in lane.seconds:
                continue
            needed_s = MARGIN * (schedule.finish_s - schedule.start_s)
            if schedule.finish_s + needed_s <= due_s + EQUAL_S:
                return way
            if schedule.finish_s < least_s:
                soonest, least_s = way, schedule.finish_s
        return soonest

    def _ready_for(self, bounds: FinishBounds) -> Mapping[str, float]:
        own, ready_s = bounds.own, self.ready_s
        if own is None and not bounds.lane.ready_s:  # nearly always
            bounds.ready_s = ready_s
            return ready_s
        if own is not None and own[1] in ready_s:
            _, processor, seconds = own
            ready_s, free_s = ready_s.copy(), self._free_s
            for name in self._neighbours[processor]:
                if name in ready_s:
                    at_s, least_s = ready_s[name] - seconds, free_s[name]
                    ready_s[name] = at_s if at_s > least_s else least_s
        if bounds.lane.ready_s:
            lane_s = bounds.lane.ready_s
            ready_s = {name: max(at_s, lane_s.get(name, at_s)) for name, at_s in ready_s.items()}
        bounds.ready_s = ready_s
        return ready_s
