"""Decisions: asks the policy, checks what it says and carries it out. Has no rule of its own.

Policies are third-party code: whatever one raises, and whatever it decides that is not allowed, is
its fault (`coinfer.core.admission`), and all that waits is answered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from coinfer.core.admission import Admission
from coinfer.core.answers import Answers
from coinfer.core.forks import Forks
from coinfer.core.lane import Lane
from coinfer.core.learning import doubt
from coinfer.core.policy import Drop, Policy, Rerank, Start, StartFork, WaitUntil, overridden
from coinfer.core.progress import Progress
from coinfer.core.request import OnLate, Outcome, Request
from coinfer.core.starts import Starts
from coinfer.core.state import State
from coinfer.core.timers import Timers
from coinfer.core.variants import best_way
from coinfer.core.view import View
from coinfer.errors import PolicyError

__all__ = ["Decisions"]

_Hook: TypeAlias = Callable[..., Any] | None


@dataclass(slots=True, eq=False)
class Decisions:
    """What the policy decides, one by one: each is carried out before the next is asked for.

    Attributes:
        place: The policy's hook of this name; None if it has only the default.
        is_told: Whether the policy wants to know of every request that comes.
    """

    _policy: Policy
    _state: State
    _view: View
    _timers: Timers
    _answers: Answers
    _admission: Admission
    _starts: Starts
    _forks: Forks
    place: _Hook = field(init=False)
    is_told: bool = field(init=False)
    _queue: _Hook = field(init=False)
    _arrived: _Hook = field(init=False)
    _pick: _Hook = field(init=False)
    _allows: _Hook = field(init=False)

    def __post_init__(self) -> None:
        """Ask for the hooks once: it is a question per request otherwise."""
        self.follow(self._policy)

    def follow(self, policy: Policy) -> None:
        """Let a policy decide from now on."""
        self._policy = policy
        self.place = overridden(self._policy, "place")
        self._queue = overridden(self._policy, "queue")
        self._arrived = overridden(self._policy, "arrived")
        self.is_told = self._queue is not None or self._arrived is not None
        self._pick = overridden(self._policy, "pick")
        self._allows = overridden(self._policy, "allows")

    def queue_of(self, request: Request) -> int:
        """Tell the policy of a request that comes now; return the queue in which it shall wait."""
        try:
            queue: int = 0 if self._queue is None else _number_of(self._queue(request))
            if self._arrived is not None:
                self._arrived(request, self._view.now)
            return queue
        except Exception as error:  # noqa: BLE001 - third-party code; all must be answered
            self.place = None
            self._admission.blame_policy(error)
            return 0

    def start_at_once(self, progress: Progress) -> bool:
        """Start a lone request without queueing it, if the policy places it directly.

        Returns:
            Whether it was started.
        """
        state, lane, request = self._state, progress.lane, progress.request
        if state.used == state.all_units or request.deadline_s <= self._view.now:
            return False
        try:
            processor: str | None = self.place(self._view, lane, request)  # type: ignore[misc]
            if self._allows is not None and processor is not None:
                self._check_allowed(lane, processor)
            seconds = lane.seconds.get(processor) if processor is not None else None
        except Exception as error:  # noqa: BLE001 - third-party code; all must be answered
            self._admission.blame_policy(error)
            return False
        if processor is None or seconds is None or not state.is_idle(processor):
            return False
        if lane.is_plain:
            self._starts.launch(
                lane.variant, processor, (request,), (progress,), lane.rest, seconds
            )
            return True
        if not lane.may_start(processor, self._view.now):
            return False
        if lane.cheaper and request.deadline_s < math.inf:
            return False  # what is offered to it, policies see where it waits
        step, variant = state.step(lane, processor), ""
        if lane.cheaper:
            way = best_way(state, lane, step, request)
            step, variant = way.step, way.lane.variant
        self._starts.launch_step(lane, step, (request,), (progress,), variant)
        return True

    def take(self) -> None:
        """Let the policy decide; something waits and some compute unit is free."""
        state = self._state
        if self._admission.fault is not None:  # what was on its way then waits once more now
            self._admission.fail_waiting()
            return
        self._timers.policy_s = math.inf  # what the last decision wanted is out of date
        try:
            if self._pick is not None:
                self._start_heads(self._pick)
                return
            # Of any type: what a policy yields is checked here, and not believed to be a decision.
            decisions: Iterable[object] = self._policy.decide(self._view)
            for decision in decisions:
                if isinstance(decision, Start):  # nearly always; a `match` costs more
                    if self._allows is not None:
                        self._check_start(decision)
                    self._starts.start(decision)
                else:
                    self._apply(decision)
                if not state.lanes or state.used == state.all_units:
                    return  # nothing is left to decide: do not make the policy find that out
        except Exception as error:  # noqa: BLE001 - third-party code; all waiting must be answered
            self._admission.blame_policy(error)
            self._admission.fail_lost()

    def _start_heads(self, pick: Callable[[View], tuple[Lane, str] | None]) -> None:
        """Start what the policy picks, one by one; checked as any other decision."""
        state = self._state
        while state.lanes and state.used != state.all_units:
            picked = pick(self._view)
            if picked is None:
                return
            lane, processor = picked
            request = lane.head
            seconds = lane.seconds.get(processor)
            if self._allows is not None:
                self._check_allowed(lane, processor)
            is_plain = lane.is_plain or self._starts.is_plain_now(lane)
            if seconds is not None and is_plain and state.is_idle(processor):
                progress = state.requests[request.id]
                state.dequeue(progress)
                self._starts.launch(
                    lane.variant, processor, (request,), (progress,), lane.rest, seconds
                )
            else:
                self._starts.start_any(Start(processor, (request,)))

    def _check_start(self, start: Start) -> None:
        for request in start.requests:
            self._check_allowed(self._starts.waiting(request).lane, start.processor)

    def _check_allowed(self, lane: Lane, processor: str) -> None:
        """Raise PolicyError if the policy starts what it says is never served there."""
        assert self._allows is not None
        if not self._allows(self._view, lane, processor):
            raise PolicyError(
                f"model {lane.key.model!r} is started on {processor!r}, which the policy's own "
                "`allows` rules out"
            )

    def _apply(self, decision: object) -> None:
        match decision:
            case StartFork():
                if self._allows is not None:
                    lane = self._starts.waiting(decision.request).lane
                    self._check_allowed(lane, decision.left)
                    self._check_allowed(lane, decision.right)
                self._forks.start(decision)
            case Drop(request, reason):
                progress = self._starts.waiting(request)
                if request.on_late is not OnLate.DROP:
                    raise PolicyError(f"request {request.id} must not be dropped")
                lane = progress.lane
                for way in (lane, *lane.cheaper):
                    doubt(self._state, way)
                self._answers.reply_waiting(progress, Outcome.DROPPED, reason)
            case Rerank(request):
                progress = self._starts.waiting(request)
                progress.lane.rerank(self._policy.rank(request), request)
            case WaitUntil(at_s):
                now = self._view.now
                if not at_s > now:  # would fire at once, for ever; also refuses NaN
                    raise PolicyError(f"cannot wait until {at_s}: it is {now} now")
                self._timers.wake(at_s)
            case _:
                raise PolicyError(
                    f"{decision!r} is no decision; yield Start, StartFork, Drop, Rerank or "
                    "WaitUntil"
                )


def _number_of(queue: object) -> int:
    if not isinstance(queue, int):
        raise PolicyError(f"`queue` returned {queue!r}, which is no number of a queue")
    return queue
