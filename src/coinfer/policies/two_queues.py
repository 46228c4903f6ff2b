"""Two queues: requests with a deadline under one policy, all others under another.

Rule (Band, MobiSys 2022): what has a deadline waits apart from what has none, and each queue is
served by a policy of its own. The one with deadlines decides first; what it leaves free goes to the
best effort of the other. So best effort waits as long as what has a deadline keeps all processors
busy.

A processor of several units would never be free if best effort took its units one by one. So while
something with a deadline waits after its policy has decided, best effort gets no idle processor
that shares a unit with a busy one on which that could run. What is free as a whole and was not
taken is left to best effort.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

from coinfer.core.commands import Execution
from coinfer.core.lane import Lane
from coinfer.core.part_of_view import PartOfView
from coinfer.core.policy import Decision, Policy, overridden
from coinfer.core.request import Request
from coinfer.core.view import View
from coinfer.errors import ConfigurationError
from coinfer.policies.registry import make_policy

__all__ = ["TwoQueues"]

_DEADLINE, _BEST_EFFORT = 0, 1


@dataclass(kw_only=True)
class TwoQueues(Policy):
    """Serve what has a deadline by one policy, and what has none by another.

    Attributes:
        deadline: Name of the policy for requests with a deadline.
        best_effort: Name of the policy for all others.
        deadline_options: Options of the first.
        best_effort_options: Options of the second.
    """

    deadline: str = "least_slack"
    best_effort: str = "heft"
    deadline_options: Mapping[str, Any] = field(default_factory=dict)
    best_effort_options: Mapping[str, Any] = field(default_factory=dict)
    _policies: tuple[Policy, Policy] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Build both policies; what is wrong with one is wrong with this one."""
        if "two_queues" in (self.deadline, self.best_effort):
            raise ConfigurationError("policy 'two_queues' cannot be one of its own two policies")
        self._policies = (
            make_policy(self.deadline, **self.deadline_options),
            make_policy(self.best_effort, **self.best_effort_options),
        )
        for hook in ("arrived", "started", "allows"):
            if not any(overridden(policy, hook) for policy in self._policies):
                # Neither needs to be asked: nor is this one, as long as it has only the default.
                setattr(self, hook, MethodType(getattr(Policy, hook), self))

    def arrived(self, request: Request, now: float) -> None:
        """Tell both: what comes with a deadline also matters to those that have none."""
        for policy in self._policies:
            policy.arrived(request, now)

    def started(self, execution: Execution) -> None:
        """Tell the policy of the queue from which it was started."""
        self._policies[self.queue(execution.requests[0])].started(execution)

    def allows(self, view: View, lane: Lane, processor: str) -> bool:
        """Let the policy of the lane's queue decide."""
        return self._policies[lane.key.queue].allows(view, lane, processor)

    def queue(self, request: Request) -> int:
        """Keep requests without a deadline apart."""
        return _DEADLINE if request.deadline_s < math.inf else _BEST_EFFORT

    def rank(self, request: Request) -> Any:
        """Order as the policy of the request's queue does."""
        return self._policies[self.queue(request)].rank(request)

    def decide(self, view: View) -> Iterator[Decision]:
        """Let the deadline policy decide first."""
        deadline, best_effort = self._policies
        urgent = PartOfView(view, _DEADLINE)
        if urgent.n_waiting:
            for decision in deadline.decide(urgent):
                yield decision
                urgent.refresh()
        rest = PartOfView(view, _BEST_EFFORT)
        if rest.n_waiting:
            rest.held = _held(urgent)
            for decision in best_effort.decide(rest):
                yield decision
                rest.refresh()
                rest.held = _held(urgent)


def _held(urgent: PartOfView) -> list[str]:
    """Return the idle processors that share a unit with a busy one which something may wait for."""
    lanes, idle = urgent.lanes(), urgent.idle()
    if not lanes or not idle:
        return []
    wanted = {name for lane in lanes for name in urgent.runners(lane)}.difference(idle)
    kept = {other for name in wanted for other in urgent.sharing(name)}
    return [name for name in idle if name in kept]
