"""Comparative advantage: each processor takes what the dual prices of the LP value most there.

Rule: the linear program of `coinfer.bound` gives, for a mix of models, the shares of its time that
each processor spends on each model, and prices: what an inference of a model is worth, and what a
second of a processor is worth. A model's advantage on a processor is the worth of the inference
divided by the worth of the time it takes there; it is 1 where the optimum uses the pair and less
elsewhere (complementary slackness). A free processor takes, of what waits,

1. the models on which the optimum spends its time, in the proportion of the shares (start-time fair
   queueing; Goyal et al., 1996),
2. else the model of which its advantage is greatest.

The gate: it takes nothing that the other processors would finish sooner. They would if they could
finish all that waits of this model before this processor could finish one; and, if its advantage is
not within `slack` of the optimum's, that is all that counts. Otherwise it also takes what it
finishes before the whole machine could be done with all that waits.

The mix is estimated from what waits and from what arrived: by model, the larger of both counts. An
arrival counts less the more requests came or started after it (exponentially, `memory` of them).
Every few requests the mix is compared with that for which the program was solved, and the times
with those on which it was solved. If more than `drift` of the machine's worth has changed, or a
model or a processor comes or goes, it is solved again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from coinfer.bound import throughput_bound
from coinfer.core.commands import Execution
from coinfer.core.lane import Lane
from coinfer.core.policy import Policy, Start, WaitUntil
from coinfer.core.request import Request
from coinfer.core.view import View
from coinfer.errors import ConfigurationError
from coinfer.policies.mapping import Wait, others_finish, waits_of

__all__ = ["ComparativeAdvantage"]


_LEAST_SHARE = 1e-3
"""No model's part of the mix is less: all need prices, also those that nobody asked for yet."""

_LEAST_S = 1e-9
"""No time is less: a bound needs times above 0, and an estimate may come close to that."""

_LOOK_AFTER = 32
"""Requests after which the mix and the times are looked at again."""


@dataclass(slots=True, kw_only=True)
class ComparativeAdvantage(Policy):
    """Serve by lists made from the prices of the optimum.

    Attributes:
        slack: How much less than 1 an advantage may be and still count as the optimum's.
        memory: How many arrivals and starts the estimate of the mix goes back.
        drift: Part of the machine's worth that must have changed until the lists are made anew.
    """

    # The registry checks options with pydantic, which must not look into the private fields.
    __pydantic_config__: ClassVar[Mapping[str, bool]] = {"arbitrary_types_allowed": True}

    slack: float = 0.05
    memory: int = 1000
    drift: float = 0.1
    _demand: _Demand = field(init=False, repr=False)
    _plan: _Plan | None = field(default=None, init=False, repr=False)
    _since_look: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        if not 0 <= self.slack <= 1 or not self.drift >= 0 or self.memory < 1:
            raise ConfigurationError(
                "policy 'comparative_advantage': slack must be in 0..1, drift must not be "
                "negative, memory must be at least 1"
            )
        self._demand = _Demand(self.memory)

    def rank(self, request: Request) -> float:
        """Order requests of one model by the moment they were due, and note what is asked for."""
        self._demand.note(request)
        self._since_look += 1
        return request.arrival_s

    def started(self, execution: Execution) -> None:
        """Let what was asked for before count less."""
        count = len(execution.requests)
        self._demand.age(count)
        self._since_look += count

    def place(self, view: View, lane: Lane, request: Request) -> str | None:
        """Give a lone request to the free processor that should take it, if the lists are there."""
        plan = self._plan
        if plan is None or self._since_look + 1 >= _LOOK_AFTER or not plan.is_for(view):
            return None
        if lane.cheaper:
            return None  # it is not placed for certain
        seconds = view.resident_s(lane)
        waits = waits_of(view, seconds, view.units_free_at())
        horizon_s = plan.horizon_s(view, lane.model)
        found = [
            (plan.place(name, lane.model), name)
            for name in view.idle_runners(lane)
            if self._takes(plan, name, seconds[name], lane.model, 1, waits, horizon_s)
        ]
        if not found:
            return None
        _, name = min(found)
        self.rank(request)
        plan.start(name, lane.model, seconds[name])
        return name

    def decide(self, view: View) -> Iterator[Start | WaitUntil]:
        """Start, on the free processors, what they should do."""
        while found := view.startable():
            plan = self._plan_for(view)
            now, free_at = view.now, view.units_free_at()
            horizon_s = plan.horizon_s(view)
            candidates = []
            again_s = math.inf
            for lane, able in found:
                seconds, model = view.resident_s(lane), lane.model
                waited_s = view.waited_s(lane, seconds, free_at) if lane.ready_s else seconds
                waits = waits_of(view, waited_s, free_at)
                for name in able:
                    if self._takes(plan, name, seconds[name], model, len(lane), waits, horizon_s):
                        place = plan.place(name, model)
                        candidates.append((place, lane.head_rank, name, lane, seconds[name]))
                    else:
                        again_s = min(again_s, now + seconds[name])
            if not candidates:
                if now < again_s < math.inf:
                    yield WaitUntil(again_s)
                return
            _, _, name, lane, service_s = min(candidates, key=lambda item: item[:3])
            plan.start(name, lane.model, service_s)
            yield Start(name, (lane.head,))

    def _takes(
        self,
        plan: _Plan,
        name: str,
        service_s: float,
        model: str,
        count: int,
        waits: Sequence[Wait],
        horizon_s: float,
    ) -> bool:
        """Tell whether a free processor should take one of `count` waiting requests of a model."""
        if service_s <= horizon_s and plan.is_good(name, model, self.slack):
            return True
        return not others_finish(waits, name, service_s, count)

    def _plan_for(self, view: View) -> _Plan:
        plan = self._plan
        if plan is None or not plan.is_for(view):
            plan = self._plan = _Plan(view, self._demand)
            self._since_look = 0
        elif self._since_look >= _LOOK_AFTER:
            self._since_look = 0
            if plan.drift(view, self._demand) > self.drift:
                plan = self._plan = _Plan(view, self._demand)
        return plan


class _Demand:
    """What was asked for: arrivals by model, older ones counting less.

    Instead of making all old counts smaller at each arrival, each arrival counts more than the one
    before; `_weight` is what the latest counts.
    """

    __slots__ = ("_counts", "_growth", "_weight", "sizes")

    def __init__(self, memory: int) -> None:
        self._growth = 1 + 1 / memory
        self._weight = 1.0
        self._counts: dict[str, float] = {}
        self.sizes: dict[str, tuple[int, int]] = {}

    def note(self, request: Request) -> None:
        """Count an arrival."""
        model = request.model
        self.sizes[model] = (request.batch, request.shape)
        self.age()
        self._counts[model] = self._counts.get(model, 0.0) + self._weight

    def age(self, count: int = 1) -> None:
        """Let all that was counted so far count less: so many arrivals or starts came after it."""
        self._weight *= self._growth if count == 1 else self._growth**count
        if self._weight > 1e100:
            self._counts = {name: count / self._weight for name, count in self._counts.items()}
            self._weight = 1.0

    def mix(self, view: View, models: Mapping[str, object]) -> dict[str, float]:
        """Share of each of these models in what waits and what arrived."""
        waits = dict.fromkeys(models, 0)
        for lane in view.lanes():
            waits[lane.model] = waits.get(lane.model, 0) + len(lane)
        counts = {m: max(waits[m], self._counts.get(m, 0.0) / self._weight) for m in models}
        total = sum(counts.values()) or 1.0
        raised = {model: max(count / total, _LEAST_SHARE) for model, count in counts.items()}
        total = sum(raised.values())
        return {model: share / total for model, share in raised.items()}

    def seconds(self, view: View) -> dict[str, dict[str, float]]:
        """Expected seconds of a request by model and processor; only what can run now."""
        found = {}
        for model in view.models:
            row = view.resident_s(view.entrance(model, *self.sizes.get(model, ())))
            if row:
                found[model] = {name: max(s, _LEAST_S) for name, s in row.items()}
        return found


class _Plan:
    """What the optimum says for the present mix and times, and how far its shares have been kept.

    Attributes:
        situation: The models and processors that it was made for.
    """

    __slots__ = ("_advantage", "_bound", "_clock", "_ends", "_mix", "_seconds", "situation")

    def __init__(self, view: View, demand: _Demand) -> None:
        self.situation = (frozenset(view.models), frozenset(view.processors))
        self._seconds = seconds = demand.seconds(view)
        self._mix = demand.mix(view, seconds)
        processors = tuple(view.processors.values())
        self._bound = bound = throughput_bound(seconds, processors, self._mix)
        self._advantage = {
            name: {
                model: _advantage(bound.model_prices[model], row[name] * price)
                for model, row in seconds.items()
                if name in row
            }
            for name, price in bound.prices.items()
        }
        # Start-time fair queueing by processor: the virtual time, and the last end by model.
        self._clock = dict.fromkeys(bound.prices, 0.0)
        self._ends: dict[str, dict[str, float]] = {name: {} for name in bound.prices}

    def is_for(self, view: View) -> bool:
        """Tell whether the models and processors are still the same."""
        models, processors = self.situation
        return models == view.models and processors == view.processors.keys()

    def drift(self, view: View, demand: _Demand) -> float:
        """Return which part of the machine's worth the changes since it was made amount to."""
        seconds = demand.seconds(view)
        mix, bound = demand.mix(view, seconds), self._bound
        of_mix = 0.5 * sum(
            abs(share - self._mix.get(model, 0.0)) * bound.model_prices.get(model, 1.0)
            for model, share in mix.items()
        )
        of_times = sum(
            share * bound.prices[name] * abs(seconds[model][name] / self._seconds[model][name] - 1)
            for name, row in bound.shares.items()
            for model, share in row.items()
            if name in seconds.get(model, ())
        )
        return max(of_mix, of_times / bound.throughput_per_s)

    def horizon_s(self, view: View, lone: str = "") -> float:
        """Seconds in which the whole machine could at best be done with all there is.

        `lone` is the model of a request that is not in the view.
        """
        bound, now = self._bound, view.now
        worth = bound.model_prices.get(lone, 0.0)
        worth += sum(len(lane) * bound.model_prices.get(lane.model, 0.0) for lane in view.lanes())
        for execution in view.running():
            rest_s = execution.expected_end_s - now
            if rest_s > 0:
                worth += rest_s * bound.prices.get(execution.processor, 0.0)
        return worth / bound.throughput_per_s

    def is_good(self, processor: str, model: str, slack: float) -> bool:
        """Tell whether the pair is the optimum's, or nearly as good."""
        row = self._advantage[processor]
        return model in self._bound.shares[processor] or row.get(model, 0.0) >= 1 - slack

    def place(self, processor: str, model: str) -> tuple[int, float]:
        """Return a model's place on a processor's list; smaller goes first."""
        if model in self._bound.shares[processor]:
            return (0, max(self._clock[processor], self._ends[processor].get(model, 0.0)))
        return (1, -self._advantage[processor].get(model, 0.0))

    def start(self, processor: str, model: str, service_s: float) -> None:
        """Note that a processor spends time on a model."""
        share = self._bound.shares[processor].get(model)
        if share is not None:
            _, begin = self.place(processor, model)
            self._clock[processor] = begin
            self._ends[processor][model] = begin + service_s / share


def _advantage(worth: float, cost: float) -> float:
    """Where time costs nothing, there is time enough for everything."""
    return worth / cost if cost > 0 else 1.0
