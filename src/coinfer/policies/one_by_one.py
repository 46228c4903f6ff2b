"""One by one: the loop of rules that look anew after each decision. Has no rule of its own."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping

from coinfer.core.policy import Decision, Policy, WaitUntil
from coinfer.core.view import View

__all__ = ["OneByOne", "look_again_s"]


class OneByOne(Policy):
    """Base of the rules that say what comes next, until nothing does or it is to be waited for."""

    __slots__ = ()

    @abstractmethod
    def next(self, view: View) -> Decision | None:
        """Return the next decision; None if everything had better wait."""

    def decide(self, view: View) -> Iterator[Decision]:
        """Decide one thing after the other."""
        while (decision := self.next(view)) is not None:
            yield decision
            if isinstance(decision, WaitUntil):
                return


def look_again_s(
    now: float, seconds: Mapping[str, float], chosen: str, unclaimed: Iterable[str]
) -> float:
    """Return when to look again for a request that waits for a busy processor, if nothing happens.

    Free processors lose to the chosen one by the difference of the times at least. If it is still
    busy after that long, something took longer than expected, and nothing else may show that.

    Args:
        now: The moment.
        seconds: Seconds of the request by processor.
        chosen: The busy processor.
        unclaimed: The free ones that nothing else waits for.
    """
    others = [seconds[name] for name in unclaimed if name in seconds]
    return now + max(min(others, default=math.inf) - seconds[chosen], seconds[chosen])
