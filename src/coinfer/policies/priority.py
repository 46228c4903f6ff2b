"""Priority: a free processor takes what stands highest on its own list of models, with ageing.

Rule (ETRI study): a free processor takes the waiting model that stands highest on its own list. The
lists are given by hand, or made by the profiler: the less a model loses on this processor against
its best processor, the higher it stands there. A request's own `priority` lifts it by that many
places. A request climbs one place for every `ageing_s` seconds that it waits, so that none waits
for ever; infinite is the rule as published. Where no processor that lists a model can run it any
more, the lists made by the profiler decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from coinfer.core.lane import Lane
from coinfer.core.policy import Policy, PriorityUse, Start
from coinfer.core.request import Request
from coinfer.core.view import View
from coinfer.errors import ConfigurationError, UnknownNameError

__all__ = ["Priority"]

_Losses: TypeAlias = Mapping[Lane, Mapping[str, float]]
"""By lane and processor able to run it: how many times more it costs there than at best."""


@dataclass(slots=True, kw_only=True)
class Priority(Policy):
    """Serve by lists of priorities.

    Attributes:
        table: Place by processor and model, 1 first, e.g. `{"npu": {"a": 1, "b": 2}}`. A processor
            that is listed runs only the models listed for it; one that is not listed gets a list
            made from the profiles.
        ageing_s: Seconds of waiting that lift a request by one place.
    """

    table: Mapping[str, Mapping[str, int]] | None = None
    ageing_s: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an option that makes no sense."""
        if not self.ageing_s > 0:
            raise ConfigurationError("policy 'priority': ageing_s must be above 0")

    def rank(self, request: Request) -> tuple[float, float]:
        """Order one model's requests by priority and age, which need no update as time passes."""
        if math.isinf(self.ageing_s):
            return (-request.priority, request.arrival_s)
        return (request.arrival_s / self.ageing_s - request.priority, request.arrival_s)

    def priority_use(self) -> PriorityUse:
        """A level is worth as much as a place on the list."""
        return PriorityUse.FULL

    def decide(self, view: View) -> Iterator[Start]:
        """Start, for the free processors, what stands highest on their lists."""
        self._check_names(view)
        while found := view.startable():
            losses = {lane: _losses(view.costs_of(lane)) for lane in view.lanes()}
            candidates = [
                (place + lane.head_rank[0][0], view.unit_seconds(lane, name), name, lane)
                for lane, able in found
                for name, place in self._places(lane, able, losses).items()
            ]
            if not candidates:
                return
            _, _, name, lane = min(candidates, key=lambda item: item[:3])
            yield Start(name, (lane.head,))

    def _places(self, lane: Lane, names: Sequence[str], losses: _Losses) -> dict[str, float]:
        """Return a lane's place on the lists of those processors that list it."""
        table, model = self.table, lane.model
        if table is None or not any(model in table.get(name, (model,)) for name in losses[lane]):
            return {name: made_by_profiler(losses, name, lane) for name in names}
        return {
            name: table[name][model] if name in table else made_by_profiler(losses, name, lane)
            for name in names
            if model in table.get(name, (model,))
        }

    def _check_names(self, view: View) -> None:
        for name in self.table or ():
            if name not in view.all_processors:
                where = "processor in the table of policy 'priority'"
                raise UnknownNameError.of(where, name, view.all_processors)


def made_by_profiler(losses: _Losses, processor: str, lane: Lane) -> float:
    """Return a lane's place on a processor's list, counted from 1."""
    mine = losses[lane][processor]
    return 1.0 + sum([row.get(processor, math.inf) < mine for row in losses.values()])


def _losses(costs: Mapping[str, float]) -> dict[str, float]:
    """Return how many times more a run costs on each processor than on the best for it."""
    best = min(costs.values(), default=0.0) or 1.0
    return {name: cost / best for name, cost in costs.items()}
