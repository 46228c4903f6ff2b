"""Late requests: what cannot be in time any more, and so lets others go first, yet has a share.

Part of the rule of `earliest_finish`. By deadlines alone what was due first goes first, also what
is late already, and all that follows is late for it. So it counts as if it had just come without a
deadline, and again whenever it would be its turn; and a share of the work is kept for what is so
late, the oldest first, so that nothing starves.

What has no deadline is late in that sense after half of its patience, where others have one; every
second turn of what is late is its.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping

from coinfer.core.policy import Start
from coinfer.core.request import Request
from coinfer.core.view import View
from coinfer.policies.among_alike import best_among_alike
from coinfer.policies.crowding import Crowding

__all__ = ["LateRequests"]

_KEPT = 1 / 10
"""Of the least seconds of what starts, the share that is kept for what is late in any case."""

_SLOWER = 2.0
"""What is kept is used on processors that take at most so many times the least."""

_AT_ONCE = 32
"""So many without a deadline let others go first at one moment: it must not take long, however many
wait, and the rest do so when something starts or ends."""


class LateRequests:
    """The requests that let others go first, and what is kept for them.

    Attributes:
        due_s: By number of such a request, as when due it counts now. Always the same dictionary.
        has_deadlines: Whether any request had a deadline.
    """

    __slots__ = (
        "_crowding",
        "_is_turn_of_patient",
        "_last_due",
        "_last_due_s",
        "_late",
        "_let_by",
        "_owed_s",
        "_patience_s",
        "_patient",
        "due_s",
        "has_deadlines",
    )

    def __init__(self, patience_s: float, crowding: Crowding) -> None:
        """Begin with none.

        Args:
            patience_s: Implied relative deadline of requests that have none, in seconds.
            crowding: Tells how wide a run of theirs is where many processors are alike.
        """
        self.due_s: dict[int, float] = {}
        self.has_deadlines = False
        self._patience_s = patience_s
        self._crowding = crowding
        self._late: deque[Request] = deque()  # with deadlines
        self._patient: deque[Request] = deque()  # without
        self._is_turn_of_patient = True
        self._owed_s = 0.0
        self._last_due_s = -math.inf
        self._last_due: Request | None = None
        self._let_by = (0.0, 0)  # at one moment, how many without a deadline let others go first

    def __len__(self) -> int:
        return len(self._late) + len(self._patient)

    def note(self, request: Request, now: float) -> None:
        """Take note of a request with a deadline that came just now."""
        self.has_deadlines = True
        self._last_due_s = max(self._last_due_s, min(request.deadline_s, now + self._patience_s))
        if self._last_due is None or request.deadline_s >= self._last_due.deadline_s:
            self._last_due = request

    def gets_late(self, request: Request, least_s: float, view: View) -> bool:
        """Tell whether a request cannot be in time any more, and so lets others go first now.

        One without a deadline does when half of its patience has passed: were that the whole, as
        many of them as a processor can serve would always be about to reach it, and go first. Once
        deadlines have stopped coming it keeps its place.

        Args:
            request: The request.
            least_s: The least that it can take; infinite if nothing can run it.
            view: What is seen.
        """
        now = view.now
        if request.deadline_s == math.inf:
            patience_s = self._patience_s
            if now <= request.arrival_s + patience_s / 2 or not self._come_deadlines(view):
                return False
        else:
            if not request.deadline_s < now + least_s < math.inf:
                return False
            patience_s = max(self._patience_s, request.deadline_s - request.arrival_s)
        due_s = self.due_s.get(request.id)
        if due_s is not None and due_s >= now + patience_s / 2:
            return False  # it did so not long ago
        if request.deadline_s == math.inf:
            at_s, count = self._let_by
            count = count + 1 if at_s == now else 1
            if count > _AT_ONCE:
                return False
            self._let_by = now, count
        if due_s is None:
            (self._patient if request.deadline_s == math.inf else self._late).append(request)
        self.due_s[request.id] = now + patience_s
        return True

    def _come_deadlines(self, view: View) -> bool:
        """Tell whether requests with deadlines come, or the one that is due last waits."""
        if view.now <= self._last_due_s + self._patience_s:
            return True
        if self._last_due is not None:
            if view.waits(self._last_due):
                return True
            self._last_due = None
        return False

    def owe(self, request: Request, seconds: Mapping[str, float]) -> None:
        """Keep something for what is late, as another request starts.

        What it takes at least counts, wherever it runs: what is kept is used where it takes the
        least, and a second there is worth many of a slow processor.
        """
        if request.id not in self.due_s:
            self._owed_s += _KEPT * min(seconds.values())

    def kept(self, view: View) -> Start | None:
        """Start what has been late for longest, if so much was kept for it; forget what is gone."""
        for late in (self._late, self._patient):
            while late and not view.waits(late[0]):
                self.due_s.pop(late.popleft().id, None)
        if not self.due_s:
            self._owed_s = 0.0
            return None
        if self._owed_s <= 0.0:
            return None
        request = self._oldest()
        lane = view.lane_of(request)
        seconds = view.offered_s(lane)
        if view.alike:
            # As wide as the load allows: what is late has no right to more than others.
            name, _, _ = best_among_alike(
                view, lane, seconds, math.inf, view.n_waiting, None, self._crowding, None, view.used
            )
            if not name or not view.is_idle(name) or not lane.may_start(name, view.now):
                return None
        else:
            able = [name for name in view.idle_runners(lane) if lane.may_start(name, view.now)]
            name = min(able, key=lambda name: seconds.get(name, math.inf), default="")
            if seconds.get(name, math.inf) > _SLOWER * min(seconds.values(), default=0.0):
                return None
        self._owed_s -= min(seconds.values())
        self._is_turn_of_patient = request.deadline_s < math.inf
        (self._late if self._is_turn_of_patient else self._patient).popleft()
        self.due_s.pop(request.id, None)
        return Start(name, (request,))

    def _oldest(self) -> Request:
        """Return whose turn it is of those that are late: with deadlines and without, in turns.

        Else the answers of an overload that nobody waits for any more would all go before those
        without deadlines, which are of use whenever they come.
        """
        has_turn = self._patient and (self._is_turn_of_patient or not self._late)
        return self._patient[0] if has_turn else self._late[0]

    def awaited(self, view: View, free_at: Mapping[str, float]) -> str | None:
        """Return the processor of several units that is kept free for what is late, if one is.

        One of its units or another is always busy under load: nobody would ever find it idle.
        """
        if self._owed_s <= 0.0:
            return None
        lane = view.lane_of(self._oldest())
        seconds = view.offered_s(lane)
        # Where many are alike it runs at any width, see `kept`.
        most_s = math.inf if view.alike else _SLOWER * min(seconds.values(), default=0.0)
        now, processors = view.now, view.processors
        best = (math.inf, "")
        for name, service_s in seconds.items():
            if service_s <= most_s:
                units = processors[name].units
                busy = [free_at[unit] for unit in units if unit in free_at]
                if len(units) == 1 or not busy:
                    return None  # it gets idle, or it waits for something else
                best = min(best, (max(busy, default=now) + service_s, name))
        return best[1] or None

    def reserve(self, view: View, name: str, free_at: dict[str, float]) -> Iterator[Request]:
        """Count a processor as reserved for what is late; yield what needs no other run."""
        request = self._oldest()
        lane = view.lane_of(request)
        units = view.processors[name].units
        start_s = max(free_at.get(unit, view.now) for unit in units)
        yield request
        yield from view.reserve(
            lane, name, start_s + view.offered_s(lane)[name], free_at, None, request
        )
