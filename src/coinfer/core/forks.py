"""Forks: two spans of one request that are started at once, and how it goes on after both."""

from __future__ import annotations

from dataclasses import dataclass

from coinfer.core.answers import Answers
from coinfer.core.decision import Start, StartFork
from coinfer.core.lane import Lane
from coinfer.core.progress import Progress
from coinfer.core.request import Outcome
from coinfer.core.routes import Step
from coinfer.core.running_fork import RunningFork
from coinfer.core.starts import Starts
from coinfer.core.state import State
from coinfer.core.variants import MARGIN, best_way, until_answer_s
from coinfer.core.waits import Waits
from coinfer.errors import PolicyError

__all__ = ["Forks"]


@dataclass(slots=True, eq=False)
class Forks:
    """Splits requests and joins them again; the rules are in `coinfer.core.running_fork`."""

    _state: State
    _answers: Answers
    _waits: Waits
    _starts: Starts

    def start(self, decision: StartFork) -> None:
        """Start both sides as a policy decided.

        Raises:
            PolicyError: the decision is not allowed.
        """
        starts, state = self._starts, self._state
        progress = starts.waiting(decision.request)
        sides = _sides(state, starts, progress.lane, decision)
        if progress.lane.cheaper and self._is_late(progress, sides):
            starts.start_any(Start(self._sooner(progress, decision), (decision.request,)))
            return
        state.dequeue(progress)
        split = RunningFork(progress, decision.fork, progress.lane.variant)
        for side in sides:
            starts.launch_step(progress.lane, side, (progress.request,), (progress,))
            state.running_forks[split.begin()] = split

    def _is_late(self, progress: Progress, sides: tuple[Step, Step]) -> bool:
        """Tell whether a request would be late that begins with a fork."""
        left, right = sides
        both = right._replace(seconds=max(left.seconds, right.seconds))
        until_s = (1 + MARGIN) * until_answer_s(self._state, progress.lane, both)
        return self._state.now + until_s > progress.request.deadline_s

    def _sooner(self, progress: Progress, decision: StartFork) -> str:
        """Return on which of the two processors a request is done sooner in one piece."""
        state, lane = self._state, progress.lane
        found = {}
        for name in (decision.left, decision.right):
            if state.can_run(lane, name):
                way = best_way(state, lane, state.step(lane, name), progress.request)
                found[name] = until_answer_s(state, way.lane, way.step)
        return min(found, key=found.__getitem__)

    def end_side(self, number: int, *, well: bool) -> None:
        """Take note of the end of a side; after the other one the request goes on."""
        split = self._state.running_forks.pop(number)
        split.end(number, well=well)
        progress = split.progress
        if progress.execution is not None:
            return
        if split.failed:
            self._waits.try_again(progress, split.reached, split.variant)
            self._state.count_retry(progress.request.id, split.failed)
        elif split.reached >= self._state.units[split.variant]:
            self._answers.reply(progress, Outcome.COMPLETED)
        else:
            self._waits.go_on(progress, split.reached, split.variant)


def _sides(state: State, starts: Starts, lane: Lane, decision: StartFork) -> tuple[Step, Step]:
    """Return the two steps of a decision for a waiting request of a lane, if it is allowed."""
    request, left, right, fork = decision
    model, variant = lane.model, lane.variant
    if fork not in state.forks.get(variant, ()) or fork.first != lane.key.position:
        raise PolicyError(f"request {request.id} of {model!r} cannot fork as {fork}")
    if right in state.neighbours.get(left, ()):
        raise PolicyError(f"{left!r} and {right!r} share compute units: they cannot run together")
    if lane.routes is None or not lane.routes.leads_on(fork.right):
        raise PolicyError(f"no processor in service can run {model!r} after {fork.right}")
    steps = []
    for processor, span in ((left, fork.left), (right, fork.right)):
        if processor not in state.idle():
            raise PolicyError(f"processor {processor!r} is not idle")
        if not lane.is_open:
            starts.check_open(lane, request, processor)
        seconds = state.estimates.row(variant, span, lane.key.batch, lane.key.shape).get(processor)
        if seconds is None:
            raise PolicyError(f"processor {processor!r} cannot run {span} of {model!r}")
        if not state.residency.is_loaded(variant, span, processor):
            raise PolicyError(f"{span} of {model!r} is not loaded for {processor!r}")
        steps.append(Step(span, processor, seconds))
    return steps[0], steps[1]
