"""Priority per processor and model.

Rule (ETRI study): a free processor takes the waiting model that stands highest on its own list. The
lists are given by hand, or made by the profiler: the less a model loses on this processor against
its best processor, the higher it stands there. A request's own `priority` lifts it by that many
places. A request climbs one place for every `ageing_s` seconds that it waits, so that none waits
for ever; infinite is the rule as published.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from coinfer.core.lane import Lane
from coinfer.core.policy import Start
from coinfer.core.request import Request
from coinfer.core.view import View

__all__ = ["Priority"]


@dataclass(slots=True, kw_only=True)
class Priority:
    """Serve by lists of priorities.

    Attributes:
        table: Place by processor and model, 1 first, e.g. `{"npu": {"a": 1, "b": 2}}`. A processor
            that is listed runs only the models listed for it; one that is not listed gets a list
            made from the profiles.
        ageing_s: Seconds of waiting that lift a request by one place.
    """

    table: Mapping[str, Mapping[str, int]] | None = None
    ageing_s: float = 1.0

    def rank(self, request: Request) -> tuple[float, float]:
        """Order one model's requests by priority and age, which need no update as time passes."""
        if math.isinf(self.ageing_s):
            return (-request.priority, request.arrival_s)
        return (request.arrival_s / self.ageing_s - request.priority, request.arrival_s)

    def decide(self, view: View) -> Iterator[Start]:
        """Start, for the free processors, what stands highest on their lists."""
        while candidates := [
            (place + lane.head_rank[0][0], view.unit_seconds(lane.key, name), name, lane)
            for lane, able in view.startable()
            for name in able
            if (place := self._place(lane, name, view)) is not None
        ]:
            _, _, name, lane = min(candidates, key=lambda item: item[:3])
            yield Start(name, (lane.head,))

    def _place(self, lane: Lane, processor: str, view: View) -> float | None:
        if self.table is not None and processor in self.table:
            return self.table[processor].get(lane.model)
        return made_by_profiler(view, processor, lane)


def made_by_profiler(view: View, processor: str, lane: Lane) -> float:
    """Return a lane's place on a processor's list, counted from 1, from the expected times."""
    mine = _loss(view, lane, processor)
    return 1.0 + sum(_loss(view, other, processor) < mine for other in view.lanes())


def _loss(view: View, lane: Lane, processor: str) -> float:
    best = min(view.unit_seconds(lane.key, name) for name in view.processors)
    here = view.unit_seconds(lane.key, processor)
    return here / best if best > 0 else here
