"""Admission: which requests are taken in at all, and when no more are.

None are beyond the limit, of a model that is not loaded or leaves, after the engine was closed, or
after the policy failed: it cannot be trusted any longer.
"""

from __future__ import annotations

from dataclasses import dataclass

from coinfer.core.answers import Answers
from coinfer.core.commands import Reply
from coinfer.core.events import Closed, ModelUnloaded
from coinfer.core.policy import Policy
from coinfer.core.progress import Progress
from coinfer.core.request import Outcome, Request
from coinfer.core.state import State
from coinfer.errors import PolicyError

__all__ = ["Admission"]


@dataclass(slots=True, eq=False)
class Admission:
    """Refuses requests, and answers those that wait in vain once no more are taken.

    Attributes:
        most_waiting: Requests that may wait; one more is rejected. Infinite: no limit.
        policy: Who decides.
        closed: Why no more requests are taken; empty as long as they are.
        fault: What the policy did, if that is why.
    """

    _state: State
    _answers: Answers
    policy: Policy
    most_waiting: float
    closed: str = ""
    fault: PolicyError | None = None

    def refuses(self, request: Request) -> bool:
        """Reject a request if it must not be taken in; tell whether that was so."""
        state, model, refusal = self._state, request.model, self.closed
        if not refusal and (model not in state.variants or model in state.leaving):
            refusal = f"model {model!r} is not loaded"
        elif not refusal and len(state.waiting) >= self.most_waiting:
            refusal = f"{self.most_waiting} requests wait already, the admission limit"
        if refusal:
            state.commands.append(Reply(request, Outcome.REJECTED, refusal))
        return bool(refusal)

    def close(self, event: Closed) -> None:
        """Take no more requests."""
        self.closed = self.closed or "the engine is stopping"
        if event.drop_waiting:
            for progress in self._not_started():
                self._answers.reply_waiting(progress, Outcome.REJECTED, self.closed)

    def unload(self, event: ModelUnloaded) -> None:
        """Take no more requests of a model; it is evicted with its last answer."""
        state, model = self._state, event.model
        if model not in state.variants:
            return
        everyone = state.requests.values()
        state.leaving[model] = sum(progress.request.model == model for progress in everyone)
        reason = f"model {model!r} is being unloaded"
        for progress in self._not_started():
            if progress.request.model == model:
                self._answers.reply_waiting(progress, Outcome.REJECTED, reason)
        if state.leaving.get(model) == 0:
            self._answers.evict(model)

    def _not_started(self) -> list[Progress]:
        state = self._state
        everyone = (state.requests[request_id] for request_id in state.waiting)
        return [progress for progress in everyone if not progress.started]

    def blame_policy(self, error: Exception) -> None:
        """Answer all that waits and take no more: the policy cannot be trusted any longer."""
        name = type(self.policy).__name__
        self.fault = PolicyError(f"policy {name} failed: {type(error).__name__}: {error}")
        self.fault.__cause__ = error
        self.closed = str(self.fault)
        self.fail_waiting()

    def fail_lost(self) -> None:
        """Answer what neither waits nor runs, because a decision was nonsense half-way through."""
        running = {r.id for each in self._state.running.values() for r in each.requests}
        for progress in list(self._state.requests.values()):
            if not progress.waits and progress.request.id not in running:
                self._answers.reply(progress, Outcome.FAILED, self.closed)

    def fail_waiting(self) -> None:
        """Answer all that waits: nobody decides any more."""
        for progress in self._state.clear_waiting():
            self._answers.reply(progress, Outcome.FAILED, self.closed)
