"""Faults: failed and endless executions, and processors that are lost, set aside and tried again.

The rules. A processor on which run after run fails is set aside, unless it is the last one or some
model would have no way to its end without it: no other could then take its place. If a model needs
one that is set aside, because another was lost or the model is new, all that are set aside are
tried again at once. Failures of requests that fail elsewhere too are not held against a processor:
one that was set aside for them comes back. If the request ends well elsewhere, the processor's
estimate rises (`coinfer.core.estimates`). A processor whose execution overran its limit is lost.
An execution of several requests that fails says nothing of its processor and is nobody's attempt:
each request goes on alone, and only a run alone is evidence. How often, and for how long, is
`coinfer.core.health`; how a failed request goes on is `coinfer.core.waits`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from coinfer.core.commands import Abandon, Execution
from coinfer.core.events import Failed, ProcessorLost, ProcessorRestored
from coinfer.core.forks import Forks
from coinfer.core.health import Health
from coinfer.core.state import State
from coinfer.core.timers import Timers
from coinfer.core.waits import Waits
from coinfer.core.watchdog import Watchdog

__all__ = ["Faults"]


@dataclass(slots=True, eq=False)
class Faults:
    """Takes processors out of service and puts them back; what ran there fails."""

    _state: State
    _timers: Timers
    _health: Health
    _watchdog: Watchdog
    _waits: Waits
    _forks: Forks

    # executions

    def fail(self, event: Failed) -> None:
        """Let the requests of an execution fail, and hold it against the processor if it is."""
        state, health = self._state, self._health
        execution = state.running.get(event.execution_id)
        if execution is None:
            return
        # Where the request failed before: then it is probably not the processor's fault.
        before = state.requests[execution.requests[0].id].lane.excluded
        self._fail(execution, event.reason)
        if len(execution.requests) > 1:
            return
        for name in before:
            if health.excused(name):
                state.put_back(name)
                self._timers.probe_s = health.next_s
        if not before and not self._is_needed(execution.processor):
            self._hold_against(execution.processor, event.reason)

    def _hold_against(self, processor: str, reason: str) -> None:
        if self._health.failed(processor, self._state.now):
            self._take_out(processor, "set aside", reason)
            self._timers.probe(self._health.next_s)

    def _is_needed(self, processor: str) -> bool:
        """Tell whether no other processors in service could take a processor's place."""
        in_service = self._state.in_service
        others = in_service.keys() - {processor}
        return not others or self._state.serve_more(in_service, others)

    def _fail(self, execution: Execution, reason: str) -> None:
        state = self._state
        state.release(execution)
        state.failures.note(execution, reason)
        if state.fusions.failed(execution.variant):
            state.settle_fused()
        if len(execution.requests) > 1:
            self._part(execution)
            return
        failure = f"model {execution.variant!r} on processor {execution.processor!r}: {reason}"
        place = {execution.processor}
        if state.express is not None and execution.processor in state.express.twins:
            place.add(state.express.twins[execution.processor])  # the same session
        number = execution.requests[0].id
        progress = state.requests[number]
        state.failed.setdefault(number, []).append(execution)
        progress.execution = None
        key = progress.lane.key
        progress.lane = state.lane(key._replace(excluded=key.excluded | place))
        split = state.running_forks.get(execution.id)
        if split is not None and split.failed:  # the two sides are one attempt
            progress.failures = (*progress.failures[:-1], f"{progress.failures[-1]}; {failure}")
        else:
            progress.failures = (*progress.failures, failure)
        if split is not None:
            self._forks.end_side(execution.id, well=False)
        else:
            self._waits.try_again(progress, key.position, execution.variant)
            state.count_retry(number, (execution.id,))

    def _part(self, execution: Execution) -> None:
        """Let the requests of a failed execution go on, each alone."""
        state = self._state
        state.failures.note_retry(execution)
        for request in execution.requests:
            progress = state.requests[request.id]
            progress.execution = None
            key = progress.lane.key
            progress.lane = state.lane(key._replace(alone=True))
            self._waits.go_on(progress, key.position, execution.variant)

    def give_up_overdue(self) -> None:
        """Abandon the executions that overran their limit; their processors are lost."""
        now = self._state.now
        for execution in self._watchdog.overdue():
            waited_s = now - execution.started_s
            reason = f"no result after {waited_s:.3g} s, expected {execution.expected_s:.3g} s"
            self._state.commands.append(Abandon(execution, reason))
            self.lose(ProcessorLost(execution.processor, reason))

    # processors

    def lose(self, event: ProcessorLost) -> None:
        """Take a processor out of service until somebody says that it works again."""
        self._health.forget(event.processor)
        self._take_out(event.processor, event.reason, event.reason)

    def restore(self, event: ProcessorRestored) -> None:
        """Put a processor back into service that works again."""
        self._health.forget(event.processor)
        self._state.put_back(event.processor)

    def _take_out(self, processor: str, reason: str, cause: str) -> None:
        state = self._state
        if not state.take_out(processor):
            return
        self._health.note_outage(processor, cause)
        self.bring_back_needed()
        for execution in [e for e in state.running.values() if e.processor == processor]:
            self._fail(execution, reason)
        self._waits.give_up_stranded()

    def bring_back_needed(self) -> None:
        """Try those set aside if some model needs them: better a doubtful processor than none."""
        state, aside = self._state, self._health.aside()
        if not aside:
            return
        in_service = state.in_service
        if not in_service or state.serve_more({*in_service, *aside}, in_service):
            self.bring_back(math.inf)

    def bring_back(self, until_s: float) -> None:
        """Try the processors again that were set aside until a moment."""
        for name in self._health.due(until_s):
            self._state.put_back(name)
        self._timers.probe_s = self._health.next_s
