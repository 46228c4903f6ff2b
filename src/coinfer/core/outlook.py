"""Outlook: when each processor will be free as a policy foresees it, and the plans that follow.

Made for one decision, from what runs; what the policy reserves is added. Changes no state but the
guesses of `Routes`, which make the next outlook faster and no other.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from coinfer.core.lane import Lane
from coinfer.core.planning import (
    EQUAL_S,
    RequestPlan,
    better_plan,
    finish_of,
    first_plan,
    plan_alone,
    plan_with_swaps,
)
from coinfer.core.routes import Step
from coinfer.core.swaps import Swaps

__all__ = ["Outlook", "Prospect"]


class Prospect:
    """What an outlook knows of the plan for the next request of a lane: bounds, or the plan.

    Attributes:
        lane: The lane.
        own: The step that was reserved for the request before, if any.
        latest_s: The best plan finishes no later than this ...
        earliest_s: ... and no sooner than this.
        steps: Those that finish no later than `latest_s`: of the plan, or a guess.
        plan: The best plan if `is_best`; else the first one, if it may be as good.
        is_looked_at: Whether the first plan was made.
        is_best: Whether the best plan is known.
        ready_s: When each processor can start something for the request; None: to be found out.
    """

    __slots__ = (
        "earliest_s",
        "is_best",
        "is_looked_at",
        "lane",
        "latest_s",
        "own",
        "plan",
        "ready_s",
        "steps",
    )

    def __init__(self, lane: Lane, own: Step | None) -> None:
        self.lane = lane
        self.own = own
        self.latest_s = math.inf
        self.earliest_s = -math.inf
        self.steps: tuple[Step, ...] = ()
        self.plan: RequestPlan | None = None
        self.is_looked_at = False
        self.is_best = False
        self.ready_s: Mapping[str, float] | None = None

    def uses(self, processors: Collection[str]) -> bool:
        """Tell whether some step runs on one of these processors."""
        for step in self.steps:  # noqa: SIM110 - `any` takes twice as long
            if step[1] in processors:
                return True
        return False


class Outlook:
    """The plans of waiting requests at a moment; requests of one lane share a plan.

    A request for which a step was reserved before is planned without that step's time, which does
    not keep it from anything: `own` is this step.

    Attributes:
        now: The moment.
        ready_s: By processor in service, the moment when it can start something, what was reserved
            included.
    """

    __slots__ = ("_free_s", "_held", "_neighbours", "_prospects", "_ready_s", "now")

    def __init__(
        self,
        now: float,
        free_s: Mapping[str, float],
        neighbours: Mapping[str, Collection[str]],
        held: Swaps | None = None,
    ) -> None:
        self.now = now
        self._free_s = free_s
        self._ready_s = dict(free_s)
        self._neighbours = neighbours
        self._held = held
        self._prospects: dict[tuple[Lane, Step | None], Prospect] = {}

    @property
    def ready_s(self) -> Mapping[str, float]:
        """The moment when each processor in service can start something."""
        return self._ready_s

    def plan(self, lane: Lane, own: Step | None = None) -> RequestPlan:
        """Plan how the next request of a lane finishes soonest. Some way must lead to its end."""
        return self.best_plan(self.prospect(lane, own))

    def latest_s(self, lane: Lane, own: Step | None = None) -> float:
        """Return a moment at which the plan of a lane finishes at the latest, for less work."""
        prospect = self.prospect(lane, own)
        if not prospect.is_looked_at:
            self.look(prospect)
        return prospect.latest_s

    def prospect(self, lane: Lane, own: Step | None = None) -> Prospect:
        """Return what is known of the plan of a lane, with a bound of when it finishes."""
        asked = (lane, own)
        prospect = self._prospects.get(asked)
        if prospect is None:
            prospect = self._prospects[asked] = Prospect(lane, own)
            routes = lane.routes
            if routes is not None and self._held is None and lane.key.position in routes.guesses:
                prospect.steps = routes.guesses[lane.key.position]
                self._time(prospect)
            else:
                self.look(prospect)
        return prospect

    def forget(self, prospect: Prospect) -> None:
        """Keep a prospect no longer: nobody will ask for it again."""
        del self._prospects[prospect.lane, prospect.own]

    def look(self, prospect: Prospect) -> None:
        """Make a plan fast, which is perhaps the best, for a better bound."""
        lane = prospect.lane
        plan, is_best = self._made(prospect)
        prospect.is_looked_at = True
        if plan is None:
            return
        prospect.plan, prospect.steps = plan, plan.steps
        if plan.finish_s < prospect.latest_s:
            prospect.latest_s = plan.finish_s
        prospect.is_best = is_best or plan.finish_s - prospect.earliest_s <= EQUAL_S
        if lane.routes is not None:
            lane.routes.guesses[lane.key.position] = plan.steps

    def best_plan(self, prospect: Prospect) -> RequestPlan:
        """Make sure that the best plan is known, and return it."""
        if not prospect.is_looked_at:
            self.look(prospect)
        plan = prospect.plan
        if plan is None or not prospect.is_best:
            lane = prospect.lane
            routes, position = lane.routes, lane.key.position
            assert routes is not None  # a model of one unit has only one step, known to be best
            ready_s = prospect.ready_s or self._ready_for(prospect)
            plan = better_plan(routes, position, ready_s, self.now, plan, prospect.latest_s)
            prospect.plan, prospect.steps, prospect.is_best = plan, plan.steps, True
            routes.guesses[position] = plan.steps
        prospect.latest_s = plan.finish_s
        return plan

    def take(self, steps: Collection[Step]) -> None:
        """Count steps of requests that are on their way as taken, for all but those themselves."""
        ready_s = self._ready_s
        for _, processor, seconds in steps:
            if processor in ready_s:
                for name in self._neighbours[processor]:
                    if name in ready_s:
                        ready_s[name] += seconds
        self._prospects.clear()

    def reserve(self, processor: str, seconds: float, model: str = "") -> None:
        """Count seconds on a processor, after all that was counted there before.

        Processors that share units with it cannot start anything before these seconds are over. If
        it must change to the model first, that takes its time too, and so does the change back.
        """
        ready_s = self._ready_s
        until_s = ready_s[processor] + seconds
        if self._held is not None and model:
            until_s += self._held.cost_s(processor, model)
            self._held.hold(processor, model)
        raised = {n for n in self._neighbours[processor] if ready_s.get(n, until_s) < until_s}
        for name in raised:
            ready_s[name] = until_s
        # What a plan does not use only got worse: the plan stays what it is.
        for prospect in self._prospects.values():
            prospect.ready_s = None
            if prospect.uses(raised):
                self._delay(prospect)
            elif prospect.plan is None:
                prospect.is_looked_at = False

    def _delay(self, prospect: Prospect) -> None:
        """Keep only bounds of a prospect, as what it uses gets ready later."""
        if prospect.is_best and self._held is None:
            prospect.earliest_s = prospect.latest_s
        prospect.plan = None
        prospect.is_looked_at = prospect.is_best = False
        self._time(prospect)

    def _time(self, prospect: Prospect) -> None:
        """Find out when the steps of a prospect would finish."""
        routes = prospect.lane.routes
        if routes is None or self._held is not None:  # the steps tell nothing: look at once
            prospect.latest_s = math.inf
            self.look(prospect)
        else:
            ready_s = prospect.ready_s or self._ready_for(prospect)
            # As many steps may be added in another order: none of what is equal may look worse.
            prospect.latest_s = finish_of(routes, prospect.steps, ready_s, self.now) + EQUAL_S

    def _made(self, prospect: Prospect) -> tuple[RequestPlan | None, bool]:
        """Make a plan fast, unless it is worse than what is known; tell whether it is the best."""
        lane, held = prospect.lane, self._held
        routes, ready_s = lane.routes, prospect.ready_s or self._ready_for(prospect)
        costs = {} if held is None else held.costs_of(lane.model)
        if routes is not None and costs:
            return plan_with_swaps(routes, lane.key.position, ready_s, costs, self.now), True
        if routes is not None:
            return first_plan(routes, lane.key.position, ready_s, self.now, prospect.latest_s)
        excluded = lane.key.excluded
        seconds = {n: s for n, s in lane.seconds.items() if n in ready_s and n not in excluded}
        if costs:
            ready_s = {name: at_s + costs.get(name, 0.0) for name, at_s in ready_s.items()}
        return plan_alone(lane, seconds, ready_s), True

    def _ready_for(self, prospect: Prospect) -> Mapping[str, float]:
        own, ready_s = prospect.own, self._ready_s
        if own is not None and own.processor in ready_s:
            ready_s = ready_s.copy()
            for name in self._neighbours[own.processor]:
                if name in ready_s:
                    ready_s[name] = max(self._free_s[name], ready_s[name] - own.seconds)
        prospect.ready_s = ready_s
        return ready_s
