"""Lane: waiting requests that are interchangeable for a scheduler, in the policy's order.

Requests of one model, at the same unit boundary, of one batch size and with the same processors
left to try cost the same everywhere. A policy therefore compares lanes (few) and not requests
(perhaps 100,000), and a decision stays cheap however long the queue is.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from coinfer.core.request import Request
from coinfer.core.routes import Routes
from coinfer.profiles import Span

__all__ = ["Lane", "LaneKey"]


_NOTHING: Mapping[str, float] = MappingProxyType({})


class LaneKey(NamedTuple):
    """What the requests of a lane have in common.

    Attributes:
        model: Name of the model.
        position: The next unit subgraph to run; 0 is the start.
        batch: Samples per request.
        excluded: Processors on which the requests failed and are not tried again.
        queue: Which of the policy's queues they wait in; most policies have one.
    """

    model: str
    position: int = 0
    batch: int = 1
    excluded: frozenset[str] = frozenset()
    queue: int = 0


class Lane:
    """A priority queue with removal: O(log n) push, amortised O(log n) removal, O(1) head.

    Removal only forgets the request; its heap entry is skipped when it surfaces.

    Attributes:
        key: What the requests have in common.
        model: Name of their model.
        rest: The span from their position to the model's end.
        routes: The ways to the end of a model of several units; None if the model is one unit.
        seconds: Expected seconds from their position to the model's end, by processor able to run
            the next step: the step and, if more follows, the best rest without waits. It follows
            what is observed. Of a model of one unit, also processors that are out of service or
            excluded are among them.
    """

    __slots__ = ("_heap", "_live", "key", "model", "rest", "routes", "seconds")

    def __init__(
        self, key: LaneKey, rest: Span = Span(), seconds: Mapping[str, float] = _NOTHING
    ) -> None:
        self.key = key
        self.model = key.model
        self.rest = rest
        self.routes: Routes | None = None
        self.seconds = seconds
        self._heap: list[tuple[Any, int, Request]] = []
        self._live: set[int] = set()

    def __len__(self) -> int:
        """Number of waiting requests."""
        return len(self._live)

    def push(self, rank: Any, request: Request) -> None:
        """Add a request; a smaller rank comes first, on equal ranks the smaller id."""
        heapq.heappush(self._heap, (rank, request.id, request))
        self._live.add(request.id)

    def remove(self, request_id: int) -> bool:
        """Take a request out, wherever it stands; tell whether the lane is empty now."""
        live, heap = self._live, self._heap
        live.remove(request_id)
        if not live:
            heap.clear()
            return True
        while heap and heap[0][1] not in live:
            heapq.heappop(heap)
        if len(heap) > 64 and len(heap) > 2 * len(live):
            self._heap = [entry for entry in heap if entry[1] in live]
            heapq.heapify(self._heap)
        return False

    @property
    def steps(self) -> Mapping[str, Span]:
        """The span that each processor of `seconds` runs next: the first on its best way."""
        if self.routes is None:
            return dict.fromkeys(self.seconds, self.rest)
        routes, position = self.routes, self.key.position
        return {name: routes.step(position, name).span for name in routes.seconds(position)}

    @property
    def head(self) -> Request:
        """The first request. The lane must not be empty."""
        return self._heap[0][2]

    @property
    def head_rank(self) -> Any:
        """The first request's rank, comparable with other lanes' under one policy."""
        return self._heap[0][:2]

    def in_order(self) -> Iterator[Request]:
        """Iterate from the first on, lazily: k requests cost O(k log k), not O(n)."""
        return (request for _, request in self.ranked())

    def ranked(self) -> Iterator[tuple[tuple[Any, int], Request]]:
        """Iterate over (rank, request) from the first on, lazily."""
        heap, live = self._heap, self._live
        if not heap:
            return
        yield heap[0][:2], heap[0][2]  # the head is live; often nobody asks for more
        frontier = [(heap[at][:2], at) for at in (1, 2) if at < len(heap)]
        heapq.heapify(frontier)
        while frontier:
            rank, at = heapq.heappop(frontier)
            if rank[1] in live:
                yield rank, heap[at][2]
            for child in (2 * at + 1, 2 * at + 2):
                if child < len(heap):
                    heapq.heappush(frontier, (heap[child][:2], child))

    def check(self) -> None:
        """Assert the lane's invariants."""
        ids = [entry[1] for entry in self._heap]
        assert len(set(ids)) == len(ids), f"lane {self.key}: a request is queued twice"
        assert self._live <= set(ids), f"lane {self.key}: a live request is not in the heap"
        assert not self._heap or ids[0] in self._live, f"lane {self.key}: dead head"
