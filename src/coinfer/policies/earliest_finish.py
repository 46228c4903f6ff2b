"""Earliest finish, the default: where a request finishes first, waiting for it if that pays.

Rule: take the waiting requests by urgency. For each, the processor on which it would finish first,
counting the wait for busy ones (Band's "shortest expected latency" and minimum completion time of
Maheswaran et al., 1999, for one request). If that processor is free, start; if it is busy, the
request waits for it, its time there is counted as reserved, and the next request is looked at. So a
slow free processor never takes the last job that a fast busy one would finish sooner (the trap of
pull policies in the ETRI study). It is looked at again in case the busy one overruns.

On a machine of several widths between one core and all, what a width costs is told by how busy the
machine is (`crowding`) and not by who could have had a unit; and processors that are alike are
looked at together (`among_alike`).

Five things are added:
- Urgency is the deadline, given or implied (`patience_s` after arrival), less `boost_s` per level
  of priority. It does not change while a request waits, but for one that cannot be in time any
  more: if it went first, all that follows would be late for it (the domino effect of deadlines
  under overload). It lets others go first, and a share of the work is kept for it
  (`late_requests`).
- A processor made of several units keeps others waiting. Its time counts once for every request
  that could have had one of its units: those that wait, or as many as are in the system as a rule.
  Two callers who ask again as soon as they are answered never wait at the same moment, and yet
  each would have a unit for itself.
- Processors that meet the deadline go before those that do not; a droppable request that no
  processor can finish in time any more is dropped at once, and none is started where it would be
  late.
- A processor that makes none late of those that wait (`rivals`) goes before one that does: what is
  in time on two leaves the only fast one to what needs it. So it does where that would only wait,
  unless the other one takes much longer: time of a processor that nothing can replace is what is
  short. Where processors are alike in classes, there are enough of each, and nobody looks.
- A processor that makes no request late which is about to come (`foresight`) goes before one that
  does: a long run does not take both of two cores when a frame is due that must be answered before
  it would end. That holds until its own urgency has passed; from then on nothing is kept for what
  is to come.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from coinfer.core.foresight import Foresight
from coinfer.core.lane import Lane
from coinfer.core.policy import Decision, Drop, PriorityUse, Rerank, Start, WaitUntil
from coinfer.core.request import OnLate, Request
from coinfer.core.view import View
from coinfer.errors import ConfigurationError
from coinfer.policies.among_alike import best_among_alike
from coinfer.policies.among_all import best_among_all
from coinfer.policies.crowding import Crowding
from coinfer.policies.late_requests import LateRequests
from coinfer.policies.one_by_one import OneByOne, look_again_s
from coinfer.policies.rivals import Rivals
from coinfer.policies.turns import Turns

__all__ = ["EarliestFinish"]

_INF = math.inf
_DROP = OnLate.DROP
_new = tuple.__new__
"""Makes what every start needs: half the price of calling the class of a named tuple."""

_NOBODY: frozenset[Request] = frozenset()

_WEIGHT = 1 / 8
"""Of the last arrival in the mean of how many are in the system then."""


@dataclass(slots=True, kw_only=True)
class EarliestFinish(OneByOne):
    """Serve every request where it finishes first, waiting for a busy processor if that pays.

    Attributes:
        patience_s: Implied relative deadline of requests that have none, in seconds.
        boost_s: Seconds by which one level of priority makes a request more urgent.
        window: How many waiting requests one decision looks at.
        foresee: Whether requests that are about to come count.
    """

    # The registry checks options with pydantic, which must not look into the private fields.
    __pydantic_config__: ClassVar[Mapping[str, bool]] = {"arbitrary_types_allowed": True}

    patience_s: float = 1.0
    boost_s: float = 1.0
    window: int = 32
    foresee: bool = True
    _foresight: Foresight = field(default_factory=Foresight, init=False, repr=False, compare=False)
    _crowding: Crowding = field(default_factory=Crowding, init=False, repr=False, compare=False)
    _late: LateRequests = field(init=False, repr=False, compare=False)
    _late_due_s: dict[int, float] = field(init=False, repr=False, compare=False)
    _in_system: float = field(default=1.0, init=False, repr=False, compare=False)
    _turns: Turns = field(default_factory=Turns, init=False, repr=False, compare=False)
    _view: View | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        if not self.patience_s >= 0 or not self.boost_s >= 0 or self.window < 1:
            raise ConfigurationError(
                "policy 'earliest_finish': patience_s and boost_s must not be negative, "
                "window must be at least 1"
            )
        self._late = LateRequests(self.patience_s, self._crowding)
        self._late_due_s = self._late.due_s

    def rank(self, request: Request) -> float:
        """Order by urgency."""
        due = request.deadline_s
        if due == math.inf:
            due = request.arrival_s + self.patience_s
        if self._late_due_s:
            due = self._late_due_s.get(request.id, due)
        return due - request.priority * self.boost_s

    def priority_use(self) -> PriorityUse:
        """Full if a level is worth as much as the deadline of a request that has none."""
        if self.boost_s == 0:
            return PriorityUse.NONE
        return PriorityUse.FULL if self.boost_s >= self.patience_s else PriorityUse.LITTLE

    def arrived(self, request: Request, now: float) -> None:
        """Take note of when requests come."""
        view = self._view
        if view is not None:
            if view.alike:
                self._crowding.note(request, now, view)
            if request.deadline_s == math.inf:  # others say how long they may wait
                self._in_system += _WEIGHT * (view.n_busy_with + 1 - self._in_system)
                return  # nor are they foreseen
        if request.deadline_s < math.inf:
            self._late.note(request, now)
        if self.foresee:
            self._foresight.note(request, now)

    def place(self, view: View, lane: Lane, request: Request) -> str | None:
        """Give a lone request to where it finishes first, if that is free now."""
        if request.deadline_s < _INF or (
            view.now <= self._foresight.until_s and self._foresight.is_needed(view)
        ):
            return None  # it may be hopeless, or make others late
        self._view = view
        if view.wakes and lane.brief_on:
            return self._turns.place(view, lane)
        seconds = view.offered_s(lane)
        if view.alike:
            name, _, _ = best_among_alike(
                view, lane, seconds, math.inf, 1, None, self._crowding, None, view.used
            )
            return name if name and view.is_idle(name) else None
        rivals = round(self._in_system)
        if rivals < 2 and not view.running():
            return min(seconds, key=seconds.__getitem__, default=None)
        stall = self._stall(view)
        processors, free_at = view.processors, view.units_free_at()
        name, _ = best_among_all(
            processors, seconds, math.inf, view.now, free_at, rivals, None, None, stall
        )
        return name if name and processors[name].units.isdisjoint(free_at) else None

    def next(self, view: View) -> Decision | None:
        """Return the first decision, or None if everything had better wait."""
        if view.alike:
            return self._next_among_alike(view)
        waiting = view.n_waiting
        unclaimed = set(view.idle()) if waiting else None
        if not unclaimed:
            return None
        now, free_at = view.now, view.units_free_at()
        self._view = view
        turn: str | None = None
        if view.wakes:
            found = self._turns.next(view, with_deadlines=self._late.has_deadlines)
            if isinstance(found, WaitUntil):
                return found
            if found is not None:
                turn, unclaimed = found, {found}
        riders: Collection[Request] = _NOBODY
        late = self._late_due_s
        if late:
            if (kept := self._late.kept(view)) is not None:
                return kept
            if (awaited := self._late.awaited(view, free_at)) is not None:
                riders = {*self._late.reserve(view, awaited, free_at)}
                unclaimed.difference_update(view.sharing(awaited))
                if not unclaimed:
                    return None
        rivals = round(self._in_system)
        stall = self._stall(view) if view.preempts else 1.0
        processors, foresight = view.processors, self._foresight
        forecast = beside = None
        if now <= foresight.until_s and foresight.is_needed(view):
            forecast = foresight.forecast(view)
        may_let_by = self._late.has_deadlines and waiting > 1
        if may_let_by and (forecast is not None or not view.preempts) and len(view.lanes()) > 1:
            beside = Rivals(view) or None
        lane, request = view.first()
        if not (riders and request in riders) and not view.is_hopeless(lane, request):
            # Nearly always the first request is started; the queue is then not walked at all.
            first_s, due_s = view.offered_s(lane), request.deadline_s
            if may_let_by and self._late.gets_late(
                request, min(first_s.values(), default=0.0), view
            ):
                return Rerank(request)
            if lane.ready_s:
                first_s = view.waited_s(lane, first_s, free_at)
            coming = forecast
            if coming is not None and self._urgency_s(request) <= now:
                coming = None
            if turn is not None:
                first_s = {turn: first_s[turn]}
            peers = beside and beside.of(request)
            name, _ = best_among_all(
                processors, first_s, due_s, now, free_at, max(waiting, rivals), coming, peers, stall
            )
            if (
                name in unclaimed
                and (lane.is_open or lane.may_start(name, now))
                and not (request.on_late is _DROP and self._is_vain(view, lane, request, unclaimed))
            ):
                if late:
                    self._late.owe(request, first_s)
                return _new(Start, (name, (request,), None))
        held, again_s = view.residency(), math.inf
        seconds_of: dict[Lane, Mapping[str, float]] = {}
        for lane, request in view.first_in_order(self.window, unclaimed):
            if riders and request in riders:
                continue  # it needs no run of its own
            if view.is_hopeless(lane, request):
                return Drop(request, "no processor can meet its deadline any more")
            seconds = seconds_of.get(lane)
            if seconds is None:
                seconds = seconds_of[lane] = view.offered_s(lane, held)
            if lane.ready_s:
                seconds = view.waited_s(lane, seconds, free_at)
            if turn is not None:
                seconds = {turn: seconds[turn]}
            due_s, urgency_s = request.deadline_s, self._urgency_s(request)
            coming = forecast if urgency_s > now else None
            peers = beside and beside.of(request)
            name, finish_s = best_among_all(
                processors, seconds, due_s, now, free_at, max(waiting, rivals), coming, peers, stall
            )
            if (
                request.on_late is _DROP
                and (finish_s > due_s or name in unclaimed)
                and self._is_vain(view, lane, request, unclaimed)
            ):
                continue  # it is dropped if nothing gets free before it was expected
            if name in unclaimed and (lane.is_open or lane.may_start(name, now)):
                if late:
                    self._late.owe(request, seconds)
                return _new(Start, (name, (request,), None))
            if again_s == math.inf:
                again_s = look_again_s(now, seconds, name, unclaimed)
                if coming is not None:  # it may be what speaks against the free ones
                    again_s = min(max(again_s, foresight.until_s), urgency_s)
            taken = view.reserve(lane, name, finish_s, free_at, held, request)
            if taken:
                riders = {*riders, *taken}
            if beside is not None:
                for rider in taken:
                    beside.settle(rider.id)
            if held is not None:
                seconds_of.clear()
            unclaimed.difference_update(view.sharing(name))
            if not unclaimed:
                break
            waiting -= 1 + len(taken)
        return WaitUntil(again_s) if now < again_s < math.inf else None

    def _next_among_alike(self, view: View) -> Decision | None:
        """Return the first decision where there are many processors; the rule is that of `next`.

        Nearly always the first request is started, and then little is looked at.
        """
        if not view.n_waiting:
            return None
        self._view = view
        if self._late_due_s and (kept := self._late.kept(view)) is not None:
            return kept
        turn = (
            self._turns.next(view, with_deadlines=self._late.has_deadlines)
            if view.wakes and view.idle()
            else None
        )
        if isinstance(turn, WaitUntil):
            return turn
        now, used = view.now, view.used
        waiting = view.n_waiting
        foresight = self._foresight
        forecast = foresight.forecast(view) if foresight.is_needed(view) else None
        held, free_at = view.residency(), None
        seconds_of: dict[Lane, Mapping[str, float]] = {}
        riders: set[Request] = set()
        again_s = math.inf
        awaited = self._late.awaited(view, view.units_free_at()) if self._late_due_s else None
        if awaited is not None:
            free_at = view.units_free_at()
            riders.update(self._late.reserve(view, awaited, free_at))
            used |= view.bits_of(awaited)
        for lane, request in view.first_in_order(self.window, view.idle()):
            if request in riders:
                continue  # it needs no run of its own
            if view.is_hopeless(lane, request):
                return Drop(request, "no processor can meet its deadline any more")
            seconds = seconds_of.get(lane)
            if seconds is None:
                seconds = seconds_of[lane] = view.offered_s(lane, held)
            if lane.ready_s:
                free_at = view.units_free_at() if free_at is None else free_at
                seconds = view.waited_s(lane, seconds, free_at)
            if turn is not None:
                seconds = {turn: seconds[turn]}
            due_s = request.deadline_s
            urgency_s = self._urgency_s(request)
            foreseen = forecast if urgency_s > now else None
            name, finish_s, least_s = best_among_alike(
                view, lane, seconds, due_s, waiting, foreseen, self._crowding, free_at, used
            )
            if (
                self._late.has_deadlines
                and view.n_waiting > 1
                and self._late.gets_late(request, least_s, view)
            ):
                return Rerank(request)
            if not name:
                continue
            if (
                request.on_late is _DROP
                and finish_s > due_s
                and self._is_vain(view, lane, request, view.idle())
            ):
                continue
            is_free = not view.bits_of(name) & used
            if is_free and (lane.is_open or lane.may_start(name, now)):
                if self._late_due_s:
                    self._late.owe(request, seconds)
                return _new(Start, (name, (request,), None))
            if again_s == math.inf:
                again_s = look_again_s(now, seconds, name, view.idle())
                if foreseen is not None:  # it may be what speaks against the free ones
                    again_s = min(max(again_s, self._foresight.until_s), urgency_s)
            free_at = view.units_free_at() if free_at is None else free_at
            taken = view.reserve(lane, name, finish_s, free_at, held, request)
            riders.update(taken)
            if held is not None:
                seconds_of.clear()
            used |= view.bits_of(name)
            waiting = max(waiting - 1 - len(taken), 1)
        return WaitUntil(again_s) if now < again_s < math.inf else None

    def _urgency_s(self, request: Request) -> float:
        """Return when a request's own urgency passes, from when on nothing is kept for others.

        One without a deadline has waited long enough then, whatever goes before it.
        """
        if request.deadline_s < math.inf:
            return self.rank(request)
        return request.arrival_s + self.patience_s - request.priority * self.boost_s

    def _is_vain(self, view: View, lane: Lane, request: Request, free: Iterable[str]) -> bool:
        """Tell whether a request that may be dropped would be late on every free processor.

        By their run times alone, of any variant, and what preempts them: what has to be loaded
        first may be there in time, and what is loaded may serve it in place of what is not.
        """
        left_s, processors = request.deadline_s - view.now, view.processors
        ways = [view.resident_s(way) for way in (lane, *lane.cheaper)]
        for name in free:
            least_s = min(seconds.get(name, math.inf) for seconds in ways)
            if least_s <= left_s and view.preempts and len(processors[name].units) > 1:
                least_s = self._foresight.stalled_s(view, request.model, least_s, left_s)
            if least_s <= left_s:
                return False
        return True

    def _stall(self, view: View) -> float:
        """Return how many times longer a run on several units takes for what preempts it.

        It stands still as a whole while something urgent runs on one of them.
        """
        if not view.preempts or view.now > self._foresight.until_s:
            return 1.0
        return 1.0 + self._foresight.load(view)
