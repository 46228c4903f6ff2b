"""Backlog: what waits and runs while a fused run is looked at, and what that asks of the run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from coinfer.core.flow import Flow
from coinfer.core.lane import Lane
from coinfer.core.routes import Step

__all__ = ["Backlog"]

_LEAST_SHARE = 0.25
"""Share of a fused run that it must save, unless much more waits: all that are not in it wait for
it, those of the same models even longer, since the first of each other model goes before them."""

_DEEP = 3
"""More waits than the processors do in so many fused runs: then what can be done counts."""


class Backlog(NamedTuple):
    """What there is to do, in seconds of the processors that need fewest units for it.

    Attributes:
        work_s: All of it, with what handing over takes.
        processors: How many of these there are, slower ones by how fast they are.
        is_too_much: Whether not all that waits can be done within its deadlines, in runs of a
            request each: then somebody is late in any case.

    >>> four = Backlog(work_s=4.0, processors=2.0)
    >>> four.outlasts(2.0), four.outlasts(2.1), four.least_gain_s(2.0)
    (True, False, 0.5)
    """

    work_s: float = math.inf
    processors: float = 1.0
    is_too_much: bool = False

    @classmethod
    def of(
        cls, flow: Flow | None, lanes: Iterable[Lane], lane: Lane, step: Step, handover_s: float
    ) -> Backlog:
        """Return what there is to do beside a request of a lane; endless if nobody watches that.

        Args:
            flow: Watches it.
            lanes: All that have somebody waiting.
            lane: Where the request waits.
            step: Where it would be started, and what it takes there alone.
            handover_s: What handing over a run takes.
        """
        own_s = step.seconds
        if flow is None or not own_s > 0:
            return cls()
        work_s, _, processors = flow.beside_s(lane)
        if step.processor in lane.brief_on:
            processors = 1.0  # no other one is woken for these
        work_s *= (own_s + handover_s) / own_s
        heads = [each.heap[0][2] for each in lanes]
        patience_s = max([head.deadline_s - head.arrival_s for head in heads])
        return cls(work_s, processors, is_too_much=work_s > processors * patience_s)

    def outlasts(self, seconds: float) -> bool:
        """Tell whether all of it, in runs of a request each, would last so many seconds.

        If not, a run of as many seconds would be over later than all that waits would be without
        it. What is about to come does not count: whoever has nothing to do may serve that.
        """
        return self.work_s >= self.processors * seconds

    def least_gain_s(self, seconds: float) -> float:
        """Return what a run of so many seconds must save at least."""
        is_deep = self.work_s > _DEEP * self.processors * seconds
        return 0.0 if is_deep or self.is_too_much else _LEAST_SHARE * seconds
