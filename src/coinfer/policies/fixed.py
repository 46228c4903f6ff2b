"""Fixed mapping.

Rule (Band, MobiSys 2022, "fixed"): each model has its processor, given by the user; in the order of
arrival on each processor. A request waits for its processor even while others are free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from coinfer.core.policy import Start
from coinfer.core.request import Request
from coinfer.core.view import View
from coinfer.errors import UnknownNameError

__all__ = ["Fixed"]


@dataclass(slots=True, kw_only=True)
class Fixed:
    """Serve every model on its own processor only.

    Attributes:
        assignment: Processor by model, for every model.
    """

    assignment: Mapping[str, str]

    def rank(self, request: Request) -> float:
        """Order by the moment the request was due."""
        return request.arrival_s

    def decide(self, view: View) -> Iterator[Start]:
        """Start the oldest request whose own processor is free."""
        while mine := [
            (lane.head_rank, name, lane)
            for lane, able in view.startable()
            if (name := self._processor_of(lane.model)) in able
        ]:
            _, name, lane = min(mine, key=lambda item: item[:2])
            yield Start(name, (lane.head,))

    def _processor_of(self, model: str) -> str:
        try:
            return self.assignment[model]
        except KeyError:
            raise UnknownNameError.of(
                "model in the assignment of policy 'fixed'", model, self.assignment
            ) from None
