"""Policy: the rule that decides which execution starts next, where, and what is dropped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from coinfer.core.request import Request

if TYPE_CHECKING:
    from coinfer.core.view import View

__all__ = ["Decision", "Drop", "Policy", "Start", "WaitUntil"]


class Start(NamedTuple):
    """Start an execution on an idle processor.

    Attributes:
        processor: Name of an idle processor that can run it.
        requests: One or more waiting requests of one lane's model and position.
        last: Last unit of the span; None means to the model's end.
    """

    processor: str
    requests: tuple[Request, ...]
    last: int | None = None


class Drop(NamedTuple):
    """Answer a waiting request without running it. Only where its `on_late` allows it."""

    request: Request
    reason: str


class WaitUntil(NamedTuple):
    """Decide again at `at_s` at the latest, whatever else happens."""

    at_s: float


Decision: TypeAlias = Start | Drop | WaitUntil


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
