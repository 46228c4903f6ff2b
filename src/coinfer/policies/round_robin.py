"""Round robin: idle processors in turn take the first request that they can run.

Rule (Band, MobiSys 2022): for each idle processor in order, the first queued request whose model it
can run whole. The order starts after the processor that was served last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from coinfer.core.policy import Policy, Start
from coinfer.core.view import View

__all__ = ["RoundRobin"]


@dataclass(slots=True, kw_only=True)
class RoundRobin(Policy):
    """Serve the processors in turn."""

    _last: str = field(default="", init=False, repr=False)

    def decide(self, view: View) -> Iterator[Start]:
        """Give the next idle processor in turn the oldest request that it can run."""
        while found := view.startable():
            able = {name for _, names in found for name in names}
            name = next(name for name in self._turn(view) if name in able)
            lane = min(
                (lane for lane, names in found if name in names), key=lambda lane: lane.head_rank
            )
            self._last = name
            yield Start(name, (lane.head,))

    def _turn(self, view: View) -> list[str]:
        names = list(view.processors)
        start = names.index(self._last) + 1 if self._last in names else 0
        return names[start:] + names[:start]
