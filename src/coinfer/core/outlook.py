"""Outlook: when each processor will be free as a policy foresees it, and the plans that follow.

Made for one decision, from what runs; what the policy reserves is added. Changes no state.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeAlias

from coinfer.core.lane import Lane
from coinfer.core.planning import RequestPlan, better_plan, first_plan, plan_alone, plan_with_swaps
from coinfer.core.routes import Step
from coinfer.core.swaps import Swaps

__all__ = ["Outlook"]

_Asked: TypeAlias = tuple[Lane, Step | None]


class Outlook:
    """The plans of waiting requests at a moment; requests of one lane share a plan.

    A request for which a step was reserved before is planned without that step's time, which does
    not keep it from anything: `own` is this step.

    Attributes:
        now: The moment.
        ready_s: By processor in service, the moment when it can start something, what was reserved
            included.
    """

    __slots__ = ("_first", "_free_s", "_held", "_neighbours", "_plans", "_ready_s", "now")

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
        self._plans: dict[_Asked, RequestPlan] = {}
        self._first: dict[_Asked, RequestPlan] = {}

    @property
    def ready_s(self) -> Mapping[str, float]:
        """The moment when each processor in service can start something."""
        return self._ready_s

    def plan(self, lane: Lane, own: Step | None = None) -> RequestPlan:
        """Plan how the next request of a lane finishes soonest. Some way must lead to its end."""
        asked = (lane, own)
        plan = self._plans.get(asked)
        if plan is None:
            self.latest_s(lane, own)
            plan = self._plans.get(asked)
        if plan is None:
            first, routes = self._first.pop(asked), lane.routes
            assert routes is not None  # a model of one unit has only one step, known to be best
            ready_s = self._ready_for(own)
            plan = better_plan(routes, lane.key.position, ready_s, self.now, first)
            self._plans[asked] = plan
        return plan

    def latest_s(self, lane: Lane, own: Step | None = None) -> float:
        """Return a moment at which the plan of a lane finishes at the latest, for less work."""
        asked = (lane, own)
        plan = self._plans.get(asked) or self._first.get(asked)
        if plan is None:
            plan, is_best = self._made(lane, own)
            (self._plans if is_best else self._first)[asked] = plan
        return plan.finish_s

    def take(self, steps: Collection[Step]) -> None:
        """Count steps of requests that are on their way as taken, for all but those themselves."""
        ready_s = self._ready_s
        for _, processor, seconds in steps:
            if processor in ready_s:
                for name in self._neighbours[processor]:
                    if name in ready_s:
                        ready_s[name] += seconds
        self._plans.clear()
        self._first.clear()

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
        for plans in (self._plans, self._first):
            for asked in [asked for asked, plan in plans.items() if plan.uses(raised)]:
                del plans[asked]

    def _made(self, lane: Lane, own: Step | None) -> tuple[RequestPlan, bool]:
        """Make a plan fast; tell whether it is the best."""
        routes, ready_s, held = lane.routes, self._ready_for(own), self._held
        costs = {} if held is None else held.costs_of(lane.model)
        if routes is not None and costs:
            return plan_with_swaps(routes, lane.key.position, ready_s, costs, self.now), True
        if routes is not None:
            return first_plan(routes, lane.key.position, ready_s, self.now)
        excluded = lane.key.excluded
        seconds = {n: s for n, s in lane.seconds.items() if n in ready_s and n not in excluded}
        if costs:
            ready_s = {name: at_s + costs.get(name, 0.0) for name, at_s in ready_s.items()}
        return plan_alone(lane, seconds, ready_s), True

    def _ready_for(self, own: Step | None) -> Mapping[str, float]:
        ready_s = self._ready_s
        if own is None or own.processor not in ready_s:
            return ready_s
        ready_s = dict(ready_s)
        for name in self._neighbours[own.processor]:
            if name in ready_s:
                ready_s[name] = max(self._free_s[name], ready_s[name] - own.seconds)
        return ready_s
