"""Recorded services: executions take what others took at the same moment of a recorded run.

So what a run shows of a machine whose speed changes can be held against other policies: all meet
the same machine at the same moments. Knows no policy.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import TypeAlias

from coinfer.core.commands import Execution
from coinfer.machine.machine import Machine
from coinfer.machine.span import Span
from coinfer.metrics.records import ExecutionRecord
from coinfer.sim.services import Services

__all__ = ["RecordedServices"]

_Key: TypeAlias = tuple[str, Span, str, int]


class RecordedServices(Services):
    """Seconds that executions take, by what a recorded run took nearest to the same moment.

    What the run never executed takes what it takes on the machine.

    Args:
        machine: Whose times are taken for what was not recorded.
        executions: Of the run; those without a service time are left out.
        origin_s: The moment, in the time of the run, at which its load began.
        seed: Of what is drawn for what was not recorded.
    """

    def __init__(
        self,
        machine: Machine,
        executions: Iterable[ExecutionRecord],
        origin_s: float = 0.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(machine, seed=seed)
        self._recorded: dict[_Key, tuple[list[float], list[float]]] = {}
        for each in sorted(executions, key=lambda each: each.started_s):
            if each.service_s is not None:
                key = (each.model, each.span, each.processor, each.batch)
                starts_s, seconds = self._recorded.setdefault(key, ([], []))
                starts_s.append(each.started_s - origin_s)
                seconds.append(each.service_s)

    def draw(self, execution: Execution) -> float:
        """Return the seconds of the recorded execution of the same kind that began nearest."""
        key = (execution.variant, execution.span, execution.processor, execution.batch)
        recorded = self._recorded.get(key)
        if recorded is None:
            return super().draw(execution)
        starts_s, seconds = recorded
        at = bisect_left(starts_s, execution.started_s)
        around = range(max(at - 1, 0), min(at + 1, len(starts_s)))
        return seconds[min(around, key=lambda i: abs(starts_s[i] - execution.started_s))]
