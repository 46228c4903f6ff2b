"""HEFT with reservations: as HEFT, and the second step of what was started counts as reserved.

Rule (Band, MobiSys 2022): as `heft`, but when a request starts a step of its schedule, the step
after it is reserved: on the processor of that step its time counts as taken for all other requests,
not for the request itself. The reservation ends when the request starts its next step or is
answered, however that came about. A reservation only shifts schedules: a free processor that is
still the best is taken at once.

Each request with a reservation is scheduled for itself, as its own does not count for it. So that
one decision does not take as many exact schedules, a request yields by a schedule that is made fast
and starts by its best one: who goes first is told by the soonest finish as far as it is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from coinfer.core.request import Request
from coinfer.core.request_schedule import RequestSchedule
from coinfer.core.routes import Step
from coinfer.core.view import View
from coinfer.policies.planned import PlannedMapping

__all__ = ["HeftReserved"]


@dataclass(slots=True, kw_only=True)
class HeftReserved(PlannedMapping):
    """Serve first what would finish last, and keep the next processor for what was begun.

    The option is that of `PlannedMapping`; `reserved` shows the next step by request.
    """

    reserved: Mapping[int, Step] = field(default_factory=dict, init=False)
    _yields_exactly: ClassVar[bool] = False

    def order(self, _request: Request, finish_s: float) -> float:
        """Order by the soonest finish, the latest first."""
        return -finish_s

    def taken(self, view: View) -> Mapping[int, Step]:
        """Return what is reserved; forget what was reserved for requests that are answered."""
        self.reserved = {n: step for n, step in self.reserved.items() if view.is_unanswered(n)}
        return self.reserved

    def note(self, request: Request, schedule: RequestSchedule) -> None:
        """Reserve the step after what begins now; what was reserved for that is used now."""
        others = {n: step for n, step in self.reserved.items() if n != request.id}
        following = 1 if schedule.fork is None else 2
        if len(schedule.steps) > following:
            others[request.id] = schedule.steps[following]
        self.reserved = others
