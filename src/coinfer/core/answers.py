"""Answers: every request gets exactly one. A model that leaves is evicted with its last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coinfer.core.commands import Evict, Reply
from coinfer.core.learning import blame
from coinfer.core.progress import Progress
from coinfer.core.request import Outcome, Request
from coinfer.core.state import State

__all__ = ["Answers"]

_COMPLETED = Outcome.COMPLETED

_new = tuple.__new__
"""Makes the command of every request: half the price of calling the class of a named tuple."""


@dataclass(slots=True, eq=False)
class Answers:
    """Answers requests; knows of none that is answered."""

    _state: State

    def reply(self, progress: Progress, outcome: Outcome, reason: str = "") -> None:
        """Answer a request that neither waits nor runs any more."""
        request, state = progress.request, self._state
        del state.requests[request.id]
        if state.failed and (runs := state.failed.pop(request.id, None)) and outcome is _COMPLETED:
            blame(state, runs)
        state.commands.append(_new(Reply, (request, outcome, reason)))
        leaving = state.leaving
        if leaving and request.model in leaving:
            leaving[request.model] -= 1
            if not leaving[request.model]:
                self.evict(request.model)

    def complete(self, requests: Sequence[Request]) -> None:
        """Answer requests of which an execution was the last: once for all, not each by itself."""
        state = self._state
        everyone = state.requests
        if state.failed or state.leaving:
            for request in requests:
                self.reply(everyone[request.id], _COMPLETED)
            return
        commands = state.commands
        for request in requests:
            del everyone[request.id]
            commands.append(_new(Reply, (request, _COMPLETED, "")))

    def reply_waiting(self, progress: Progress, outcome: Outcome, reason: str) -> None:
        """Answer a request that waits."""
        self._state.dequeue(progress)
        self.reply(progress, outcome, reason)

    def evict(self, model: str) -> None:
        """Forget a model of which no request is unanswered."""
        self._state.forget_model(model)
        self._state.commands.append(Evict(model))
