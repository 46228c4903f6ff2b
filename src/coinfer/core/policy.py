"""Policy: the rule that decides which execution starts next, where, and what is dropped.

A policy inherits from `Policy` and overrides `pick` or `decide`; all else has a default. This file
is never compiled: policies are not.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Any

from coinfer.core.commands import Execution
from coinfer.core.decision import Decision, Drop, Rerank, Start, StartFork, WaitUntil
from coinfer.core.lane import Lane
from coinfer.core.request import Request
from coinfer.core.view import View
from coinfer.errors import ConfigurationError

__all__ = [
    "Decision",
    "Drop",
    "Policy",
    "PriorityUse",
    "Rerank",
    "Start",
    "StartFork",
    "WaitUntil",
    "check_policy",
    "overridden",
]


class PriorityUse(enum.Enum):
    """How much a policy looks at the priorities of requests."""

    NONE = "none"
    """It does not."""
    LITTLE = "little"
    """Other things weigh more, such as a deadline that is a second earlier."""
    FULL = "full"
    """A request of higher priority goes first unless it is much younger."""


class Policy:
    """Base class of scheduling rules. A policy may keep state, but sees only the view.

    The dispatcher asks for each hook once, when it is made: one that is not overridden is never
    called, and costs nothing.

    >>> class NewestFirst(Policy):
    ...     def rank(self, request):
    ...         return -request.arrival_s
    ...
    ...     def pick(self, view):
    ...         found = view.first_startable()
    ...         return found and (found[0], view.cheapest(*found))
    """

    __slots__ = ()

    def rank(self, request: Request) -> Any:
        """Order inside a lane: smaller first, computed once, when the request starts waiting.

        An order that ages linearly needs no update: `priority + rate * (now - arrival)` compares as
        `priority - rate * arrival` does. By default, what was due first goes first.
        """
        return request.arrival_s

    def decide(self, view: View) -> Iterable[Decision]:
        """Decide what starts now. Called when something waits and some compute unit is free.

        The dispatcher applies each decision before it takes the next one from the iterable, so a
        generator sees the effect of its last decision in the view. The view must be asked anew
        after each `yield`. By default, what `pick` picks starts, until it picks nothing.
        """
        while (picked := self.pick(view)) is not None:
            lane, processor = picked
            yield Start(processor, (lane.head,))

    def pick(self, view: View) -> tuple[Lane, str] | None:
        """Return the lane whose first request starts now, and the idle processor that runs it.

        None if nothing starts now. For a policy that starts only first requests of lanes: the
        dispatcher asks this again and again in place of `decide`, which saves a generator and a
        decision per request. Asked while something waits and some compute unit is free.
        """
        raise NotImplementedError(f"{type(self).__name__} overrides neither `pick` nor `decide`")

    def place(self, view: View, lane: Lane, request: Request) -> str | None:
        """Return the idle processor for a request that arrives while nothing else waits.

        It saves the queue. The request must be placed as `decide` would start it, were it the only
        one that waits. None, the default, lets it wait, and `decide` is asked.

        Args:
            view: The state; some compute unit is free.
            lane: The lane in which the request would wait.
            request: The request.
        """
        return None

    def queue(self, request: Request) -> int:
        """Return the number of the queue in which a request waits, as long as it lives.

        No lane holds requests of two queues; `View.part` shows one of them.
        """
        return 0

    def arrived(self, request: Request, now: float) -> None:
        """Take note of a request that was taken in, before anything is decided about it.

        Args:
            request: The request.
            now: The moment, in the engine's seconds.
        """

    def allows(self, view: View, lane: Lane, processor: str) -> bool:
        """Tell whether a lane's requests may be served on a processor at all.

        It is for rules that give models to processors. The dispatcher asks before each start that
        the policy names, and takes one that is not allowed for a fault of the policy. Express
        processors are not asked about. The answer must not depend on what waits or runs.
        """
        return True

    def started(self, execution: Execution) -> None:
        """Take note of an execution that started, on whatever but an express processor."""

    def priority_use(self) -> PriorityUse:
        """Tell how much it looks at priorities: for a warning if it does not and they differ."""
        return PriorityUse.NONE


def overridden(policy: Policy, hook: str) -> Callable[..., Any] | None:
    """Return a policy's own form of a hook; None if it has only the default."""
    own: Callable[..., Any] = getattr(policy, hook)
    is_default = getattr(own, "__func__", None) is getattr(Policy, hook)
    return None if is_default else own


def check_policy(policy: object) -> Policy:
    """Return a policy if it is one.

    Raises:
        ConfigurationError: it does not inherit from `Policy`, or decides nothing.
    """
    name = type(policy).__name__
    if not isinstance(policy, Policy):
        raise ConfigurationError(
            f"policy {name} does not inherit from coinfer.core.policy.Policy; write "
            f"`class {name}(Policy)`: what it does not override has defaults"
        )
    if overridden(policy, "pick") is None and overridden(policy, "decide") is None:
        raise ConfigurationError(f"policy {name} overrides neither pick nor decide; add one")
    return policy
