"""A policy for tests that takes a fork wherever there is one."""

from __future__ import annotations

from collections.abc import Iterator

from coinfer.core.lane import Lane
from coinfer.core.policy import Policy, Start, StartFork
from coinfer.core.request import Request
from coinfer.core.view import View
from coinfer.machine.span import Fork


class Forking(Policy):
    """First come first served, in two executions at once wherever that can be.

    If it is patient, it goes unit by unit to the next fork, and waits there for two processors.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.patient = patient

    def rank(self, request: Request) -> float:
        return request.arrival_s

    def decide(self, view: View) -> Iterator[Start | StartFork]:
        while found := view.first_startable():
            lane, able = found
            routes, position = lane.routes, lane.key.position
            at_fork = routes is not None and routes.forked and routes.forked.soonest(position)
            fork = self._fork(view, lane) if at_fork else None
            if fork is not None:
                yield fork
            elif at_fork and self.patient:
                return
            else:
                last = position if self.patient and routes is not None else None
                yield Start(able[0], (lane.head,), last)

    def _fork(self, view: View, lane: Lane) -> StartFork | None:
        routes, idle, now = lane.routes, view.idle(), view.now
        assert routes is not None
        assert routes.forked is not None
        ready_s = {name: now + (0.0 if name in idle else 1.0) for name in view.processors}
        for left, right, _ in routes.forked.soonest(lane.key.position, now, ready_s, now):
            if routes.leads_on(right.span):
                fork = Fork(left.span.first, right.span.first, right.span.last)
                return StartFork(lane.head, left.processor, right.processor, fork)
        return None
