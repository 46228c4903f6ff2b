"""Policy: the rule that decides which execution starts next, where, and what is dropped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from coinfer.core.request import Request
from coinfer.machine.span import Fork

if TYPE_CHECKING:
    from coinfer.core.lane import Lane
    from coinfer.core.view import View

__all__ = [
    "Decision",
    "DirectPolicy",
    "Drop",
    "HeadPolicy",
    "Policy",
    "SortingPolicy",
    "Start",
    "StartFork",
    "WaitUntil",
    "WatchingPolicy",
]


class Start(NamedTuple):
    """Start an execution on an idle processor.

    Attributes:
        processor: Name of an idle processor that can run it.
        requests: One or more waiting requests of one lane's model and position.
        last: Last unit of the span; None means the processor's step of the lane: to the model's
            end, or as far as its best way to the end goes.
    """

    processor: str
    requests: tuple[Request, ...]
    last: int | None = None


class StartFork(NamedTuple):
    """Start two executions of one request at once, on two idle processors.

    Attributes:
        request: A waiting request that stands at the first unit of a fork of its model.
        left: The processor of the fork's left span.
        right: The processor of its right span; it shares no compute unit with the other.
        fork: Which spans.
    """

    request: Request
    left: str
    right: str
    fork: Fork


class Drop(NamedTuple):
    """Answer a waiting request without running it. Only where its `on_late` allows it."""

    request: Request
    reason: str


class WaitUntil(NamedTuple):
    """Decide again at `at_s` at the latest, whatever else happens."""

    at_s: float


Decision: TypeAlias = Start | StartFork | Drop | WaitUntil


@runtime_checkable
class DirectPolicy(Protocol):
    """A policy that can also place a lone request directly, which saves the queue.

    It must place the request as `decide` would start it, were it the only one that waits.
    """

    def place(self, view: View, lane: Lane, request: Request) -> str | None:
        """Return the idle processor for a request that arrives while nothing else waits.

        None lets it wait, and `decide` is asked.

        Args:
            view: The state; some compute unit is free.
            lane: The lane in which the request would wait.
            request: The request.
        """
        ...


@runtime_checkable
class HeadPolicy(Protocol):
    """A policy that only ever starts the first request of a lane, alone.

    The dispatcher then asks `pick` again and again in place of `decide`, which saves a generator
    and a decision per request. It must pick what `decide` would start next.
    """

    def pick(self, view: View) -> tuple[Lane, str] | None:
        """Return the lane whose first request starts now, and the idle processor that runs it.

        None if nothing starts now. Asked while something waits and some compute unit is free.
        """
        ...


@runtime_checkable
class SortingPolicy(Protocol):
    """A policy that keeps requests apart: no lane holds requests of two of its queues.

    `View.part` shows one of the queues.
    """

    def queue(self, request: Request) -> int:
        """Return the number of the queue in which a request waits, as long as it lives."""
        ...


@runtime_checkable
class WatchingPolicy(Protocol):
    """A policy that wants to know of each request when it comes, before it decides about it."""

    def arrived(self, request: Request, now: float) -> None:
        """Take note of a request that was taken in.

        Args:
            request: The request.
            now: The moment, in the engine's seconds.
        """
        ...


class Policy(Protocol):
    """What a scheduling rule must provide. It may keep state, but sees only the view.

    The dispatcher applies each decision before it takes the next one from the iterable, so a policy
    written as a generator sees the effect of its last decision in the view. The view must be asked
    anew after each `yield`.
    """

    def rank(self, request: Request) -> Any:
        """Order inside a lane: smaller first, computed once, when the request starts waiting.

        An order that ages linearly needs no update: `priority + rate * (now - arrival)` compares as
        `priority - rate * arrival` does.
        """
        ...

    def decide(self, view: View) -> Iterable[Decision]:
        """Decide what starts now. Called when something waits and some processor is idle."""
        ...
