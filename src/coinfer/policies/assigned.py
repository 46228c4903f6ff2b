"""Assigned: the loop of rules that give each model a processor. Does not know which one it is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from coinfer.core.lane import Lane
from coinfer.core.policy import Policy, Start
from coinfer.core.view import View

__all__ = ["Assigned"]


class Assigned(Policy):
    """Base of the rules by which a request waits for its processor even while others are free."""

    __slots__ = ()

    @abstractmethod
    def processor_of(self, view: View, lane: Lane) -> str:
        """Return the processor that a lane's requests wait for."""

    def allows(self, view: View, lane: Lane, processor: str) -> bool:
        """Tell whether this is the lane's own processor."""
        return processor == self.processor_of(view, lane)

    def decide(self, view: View) -> Iterator[Start]:
        """Start the oldest request whose own processor is free."""
        while mine := [
            (lane.head_rank, name, lane)
            for lane, able in view.startable()
            if (name := self.processor_of(view, lane)) in able
        ]:
            _, name, lane = min(mine, key=lambda item: item[:2])
            yield Start(name, (lane.head,))
