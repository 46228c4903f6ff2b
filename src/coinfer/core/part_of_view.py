"""Part of the view: what waits in one of the policy's queues. Reads the state; changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from coinfer.core.alike import Alike
from coinfer.core.request import Request
from coinfer.core.view import View

__all__ = ["PartOfView"]


class PartOfView(View):
    """View of what waits in one of the policy's queues; all that runs is in it.

    It shows what waited when it was made, or when it was last refreshed.

    Attributes:
        held: Processors that the queue may not use now; they do not look idle.
    """

    __slots__ = ("_queue", "_whole", "held")

    def __init__(self, whole: View, queue: int) -> None:
        super().__init__(whole._state, whole._riders)
        self._whole = whole
        self._queue = queue
        self.held: Collection[str] = ()
        self._idle = self._idle_not_held
        self.refresh()

    def refresh(self) -> None:
        """Show what waits now. To be called after each decision."""
        self.now = self._whole.now
        everyone = self._whole.lanes()
        self._lanes = {lane: None for lane in everyone if lane.key.queue == self._queue}

    @property
    def alike(self) -> Sequence[Alike]:
        """None: which of them are held is to be seen."""
        return ()

    def is_idle(self, processor: str) -> bool:
        """Tell whether a processor could start something of the queue now."""
        return super().is_idle(processor) and processor not in self.held

    def _idle_not_held(self) -> Sequence[str]:
        return [name for name in self._state.idle() if name not in self.held]

    @property
    def n_waiting(self) -> int:
        """Number of waiting requests of the queue."""
        return sum(map(len, self._lanes))

    @property
    def n_busy_with(self) -> int:
        """How many wait in the queue, and how many executions run, together."""
        return self.n_waiting + len(self.running())

    def by_arrival(self) -> Iterator[Request]:
        """Iterate over the waiting requests of the queue, the one that has waited longest first."""
        for request in self._state.waiting.values():
            lane = self.lane_of(request)
            if lane.key.queue == self._queue and lane not in self._state.unready:
                yield request
