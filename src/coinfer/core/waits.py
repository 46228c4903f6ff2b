"""Waits: how requests begin to wait, at first and again, and how waits end without a start.

The rules. A request that is under way waits again at the next unit boundary. One that failed waits
for other processors than those on which it failed, `retries` times, and for these again if its
model moves and no other has it then; it goes on from the last boundary that it reached, or from an
earlier one if only from there a way leads to the end. It is answered in place of waiting if its
caller no longer wants it, or if no processor in service can bring it to its end; and while it waits
if it may be dropped and its deadline passes before it has started.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coinfer.core.admission import Admission
from coinfer.core.answers import Answers
from coinfer.core.blocking import Blocking
from coinfer.core.events import Cancelled
from coinfer.core.lane import LaneKey
from coinfer.core.preemption import Preemption
from coinfer.core.progress import Progress
from coinfer.core.request import Outcome
from coinfer.core.state import State

__all__ = ["Waits"]

_new = tuple.__new__
"""Makes the key of a span's lane: a third of the price of `_replace`."""

_CANCELLED = "cancelled by the caller"


@dataclass(slots=True, eq=False)
class Waits:
    """Lets requests wait, or answers those that would wait in vain.

    Attributes:
        rank: The policy's hook of this name, which orders the lanes.
        preemption: Who looks after urgent ones; None without express processors.
        retries: How often a failed request is tried again.
        blocking: Who looks after deadlines for riders; None while no model batches.
    """

    _state: State
    _answers: Answers
    _admission: Admission
    rank: Callable[..., Any]
    preemption: Preemption | None
    retries: int
    blocking: Blocking | None = None

    def begin(self, progress: Progress) -> None:
        """Let a request wait in its lane, unless nobody could ever run it."""
        state, lane, request = self._state, progress.lane, progress.request
        if not lane.is_served and not state.has_runner(lane):
            self._give_up(progress)
            return
        try:
            state.enqueue(progress, self.rank(request))
            if self.preemption is not None:
                self.preemption.note(request)
            if self.blocking is not None:
                self.blocking.note(progress)
        except Exception as error:  # noqa: BLE001 - third-party code, or its ranks do not compare
            self._admission.blame_policy(error)
            self._answers.reply(progress, Outcome.FAILED, self._admission.closed)

    def begin_anew(self, progress: Progress, queue: int) -> None:
        """Let a request wait that waited in a lane of another policy, where it has been."""
        key = progress.lane.key
        progress.lane = self._state.lane(key._replace(queue=queue))
        self.begin(progress)

    def go_on(self, progress: Progress, position: int, variant: str) -> None:
        """Let a request wait for what comes next, unless nobody wants it any more.

        Args:
            progress: How far it is.
            position: The next unit.
            variant: What has served it so far, and will.
        """
        if progress.cancelled:
            self._answers.reply(progress, Outcome.CANCELLED, _CANCELLED)
        else:
            progress.lane = self._state.lane(_further(progress.lane.key, position, variant))
            self.begin(progress)

    def try_again(self, progress: Progress, position: int, variant: str) -> None:
        """Let a request wait for another processor after a failure, unless it failed too often.

        Other arguments are those of `go_on`. At the first unit the variant is open again.
        """
        if progress.cancelled or len(progress.failures) <= self.retries:
            lane = progress.lane
            further = self._state.lane(_further(lane.key, position, variant))
            if not self._state.has_runner(further):  # what was done may be done again elsewhere
                position = lane.key.position
            self.go_on(progress, position, variant)
        else:
            self._answers.reply(progress, Outcome.FAILED, "; then ".join(progress.failures))

    def cancel(self, event: Cancelled) -> None:
        """Answer a request that waits; one that runs stops at its next span boundary."""
        progress = self._state.requests.get(event.request_id)
        if progress is None:
            return
        progress.cancelled = True
        if progress.waits:
            self._answers.reply_waiting(progress, Outcome.CANCELLED, _CANCELLED)

    def expire(self, request_id: int) -> None:
        """Drop a request whose deadline has passed, unless it has started or is answered."""
        progress = self._state.requests.get(request_id)
        if progress is not None and not progress.started:  # so it waits
            late = "its deadline passed before it could start"
            self._answers.reply_waiting(progress, Outcome.DROPPED, late)

    def pardon_stranded(self, model: str) -> None:
        """Let requests try again where they failed if their model moved, and is nowhere else now.

        How often they failed still counts.
        """
        state = self._state
        for lane in [*state.lanes, *state.unready]:
            if lane.model != model or not lane.excluded or state.has_runner(lane):
                continue
            for request in list(lane.in_order()):
                progress = state.requests[request.id]
                state.dequeue(progress)
                progress.lane = state.lane(lane.key._replace(excluded=frozenset()))
                progress.lane.forget(request.id)  # it waited there before it failed
                self.begin(progress)

    def give_up_stranded(self) -> None:
        """Answer all that no processor in service can bring to its end."""
        state = self._state
        for lane in [*state.lanes, *state.unready]:
            if not state.has_runner(lane):
                for request in list(lane.in_order()):
                    self._give_up(state.requests[request.id])

    def _give_up(self, progress: Progress) -> None:
        if progress.waits:
            self._state.dequeue(progress)
        why = "; then ".join(progress.failures)
        nobody = f"no processor in service can run model {progress.request.model!r}"
        self._answers.reply(progress, Outcome.FAILED, f"{why}; {nobody}" if why else nobody)


def _further(key: LaneKey, position: int, variant: str) -> LaneKey:
    """Return the key of a lane at another boundary; at the first one the variant is open."""
    model, _, batch, excluded, queue, _, shape, alone = key
    variant = variant if position else ""
    return _new(LaneKey, (model, position, batch, excluded, queue, variant, shape, alone))
