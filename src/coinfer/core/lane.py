"""Lane: waiting requests that are interchangeable for a scheduler, in the policy's order.

Requests of one model, at the same unit boundary, of one size and with the same processors left to
try cost the same everywhere. A policy therefore compares lanes (few) and not requests
(perhaps 100,000), and a decision stays cheap however long the queue is.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from coinfer.core.fusing import Fused
from coinfer.core.request import Request
from coinfer.core.routes import Routes
from coinfer.machine.batching import Batching
from coinfer.machine.span import Span

__all__ = ["Lane", "LaneKey"]


_FEW = 32
"""Waiting requests of which all are sorted, if more than the first is asked for."""

_BRIEF_ALL_S = 0.002
"""Seconds of brief requests, each run alone, up to which no other thread is woken for some of them:
in shared runs of a few hundred microseconds, two threads still do no more than one."""

_NOTHING: Mapping[str, float] = {}
"""A plain dictionary: whether it is empty is asked for every start."""


class LaneKey(NamedTuple):
    """What the requests of a lane have in common.

    Attributes:
        model: Name of the model.
        position: The next unit subgraph to run; 0 is the start.
        batch: Samples per request.
        excluded: Processors on which the requests failed and are not tried again.
        queue: Which of the policy's queues they wait in; most policies have one.
        variant: What serves them, from the first span on; empty at position 0: it is open yet.
        shape: The class of their sizes; 0 is that of the smallest.
        alone: Whether each must be executed alone, because it failed together with others.
    """

    model: str
    position: int = 0
    batch: int = 1
    excluded: frozenset[str] = frozenset()
    queue: int = 0
    variant: str = ""
    shape: int = 0
    alone: bool = False


@dataclass(slots=True, eq=False)
class Lane:
    """A priority queue with removal: O(log n) push, amortised O(log n) removal, O(1) head.

    Removal of another than the first only notes that it is gone; its entry is skipped when it
    surfaces.

    Attributes:
        key: What the requests have in common.
        excluded: Those of the key.
        variant: What serves its requests: that of the key. Of fresh requests, the most accurate
            one that their model may use and that can run: mostly the original, which has the name
            of the model. All that follows is of this one.
        cheaper: Of fresh requests of a model with several variants, the same for each that is less
            accurate, the most accurate first: what `coinfer.core.variants` may put in. Nothing
            waits in these.
        ready_s: By processor, the moment from which the lane may start there, where that was later
            than now. The state keeps it.
        is_open: Whether it may start on every processor that can run it. The state keeps it, and
            `is_plain` and `is_plain_alone` too.
        is_plain: Whether it is open and an offer to it leaves nothing to settle: the whole model,
            one request, no riders, no load.
        is_plain_alone: Whether that is so while nothing else waits, with which it could share.
        is_served: Whether a processor in service is known to be able to bring its requests to their
            end. The state keeps it.
        is_lent: Whether it is visible only since other variants are loaded, which may serve some of
            its requests (`coinfer.core.substitutes`).
        is_rare: Whether its requests are under way, or failed: such lanes are many and seldom used.
        heap: (rank, id, request) of what waits, and of some that no longer do; not of the first.
        batching: How far its requests may share executions; None: each is a run of its own.
        fused: The fused variants that may serve its head together with those of other lanes.
        shares: Whether its requests may share executions at all, by either.
        model: Name of their model.
        brief_on: Processors on which its model takes so little that another thread is not worth
            waking for it, by what was measured. The state keeps it.
        row: Of a model of one unit, `seconds` to be corrected by what is observed; None of others,
            and where the variant is open.
        rest: The span from their position to the model's end.
        routes: The ways to the end of a model of several units; None if the model is one unit.
        seconds: Expected seconds from their position to the model's end, by processor able to run
            the next step: the step and, if more follows, the best rest without waits. It follows
            what is observed. Of a model of one unit, also processors that are out of service or
            excluded are among them.
    """

    key: LaneKey
    rest: Span = field(default=Span(), init=False)
    seconds: Mapping[str, float] = field(init=False)
    model: str = field(init=False)
    excluded: frozenset[str] = field(init=False)
    variant: str = field(init=False)
    is_open: bool = field(init=False)
    is_rare: bool = field(init=False)
    ready_s: Mapping[str, float] = field(init=False)
    is_plain: bool = field(default=False, init=False)
    is_plain_alone: bool = field(default=False, init=False)
    is_served: bool = field(default=False, init=False)
    is_lent: bool = field(default=False, init=False)
    row: dict[str, float] | None = field(default=None, init=False)
    routes: Routes | None = field(default=None, init=False)
    batching: Batching | None = field(default=None, init=False)
    fused: tuple[Fused, ...] = field(default=(), init=False)
    brief_on: tuple[str, ...] = field(default=(), init=False)
    shares: bool = field(default=False, init=False)
    cheaper: tuple[Lane, ...] = field(default=(), init=False)
    heap: list[tuple[Any, int, Request]] = field(default_factory=list, init=False)
    _gone: set[int] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        """Keep at hand what the key tells: it is asked for every start."""
        key = self.key
        self.model = key.model
        self.excluded = key.excluded
        self.variant = key.variant or key.model
        self.is_open = not key.excluded
        self.is_rare = bool(key.excluded or key.position or key.alone)
        self.ready_s = self.seconds = _NOTHING

    def __len__(self) -> int:
        """Number of waiting requests."""
        return len(self.heap) - len(self._gone)

    def push(self, rank: Any, request: Request) -> None:
        """Add a request; a smaller rank comes first, on equal ranks the smaller id."""
        heapq.heappush(self.heap, (rank, request.id, request))

    def remove(self, request_id: int) -> bool:
        """Take a request out, wherever it stands; tell whether the lane is empty now."""
        heap, gone = self.heap, self._gone
        if heap[0][1] == request_id:
            heapq.heappop(heap)
            while gone and heap[0][1] in gone:
                gone.remove(heapq.heappop(heap)[1])
            return not heap
        gone.add(request_id)
        if len(heap) > 64 and len(heap) < 2 * len(gone):
            self.heap = [entry for entry in heap if entry[1] not in gone]
            heapq.heapify(self.heap)
            gone.clear()
        return False

    def forget(self, request_id: int) -> None:
        """Drop what is left of a request that was taken out, before it comes back."""
        if request_id in self._gone:
            self.heap = [entry for entry in self.heap if entry[1] not in self._gone]
            heapq.heapify(self.heap)
            self._gone.clear()

    def rerank(self, rank: Any, request: Request) -> None:
        """Give a request of the lane another rank; it takes little where it is the first."""
        heap, gone = self.heap, self._gone
        entry = (rank, request.id, request)
        if heap[0][1] == request.id:
            heapq.heapreplace(heap, entry)
            while gone and heap[0][1] in gone:
                gone.remove(heapq.heappop(heap)[1])
            return
        others = [each for each in heap if each[1] not in gone and each[1] != request.id]
        self.heap = [*others, entry]
        heapq.heapify(self.heap)
        gone.clear()

    def may_start(self, processor: str, now: float) -> bool:
        """Tell whether the lane may start on a processor that can run it."""
        return processor not in self.excluded and self.ready_s.get(processor, now) <= now

    def takes_turns(self, processor: str, work_s: float) -> bool:
        """Tell whether no other thread is woken for a share of so many seconds of work."""
        return processor in self.brief_on and work_s <= _BRIEF_ALL_S

    def could_use(self, free: Collection[str]) -> bool:
        """Tell whether one of some processors can run what comes first, in some form."""
        return bool(self.cheaper or self.fused) or any(name in self.seconds for name in free)

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
        return self.heap[0][2]

    @property
    def head_rank(self) -> Any:
        """The first request's rank, comparable with other lanes' under one policy."""
        return self.heap[0][:2]

    def in_order(self) -> Iterator[Request]:
        """Iterate from the first on, lazily: k requests cost O(k log k), not O(n)."""
        for ranked in self.ranked():
            yield ranked[1]

    def ranked(self) -> Iterator[tuple[tuple[Any, int], Request]]:
        """Iterate over (rank, request) from the first on, lazily."""
        heap, gone = self.heap, self._gone
        if not heap:
            return
        yield heap[0][:2], heap[0][2]  # the head is live; often nobody asks for more
        if len(heap) <= _FEW:  # sorted is quicker then than what is written in Python
            for entry in sorted(heap)[1:]:  # no two have the same id: requests are not compared
                if entry[1] not in gone:
                    yield entry[:2], entry[2]
            return
        frontier = [(heap[at][:2], at) for at in (1, 2) if at < len(heap)]
        heapq.heapify(frontier)
        while frontier:
            rank, at = heapq.heappop(frontier)
            if rank[1] not in gone:
                yield rank, heap[at][2]
            for child in (2 * at + 1, 2 * at + 2):
                if child < len(heap):
                    heapq.heappush(frontier, (heap[child][:2], child))

    def check(self) -> None:
        """Assert the lane's invariants."""
        ids = [entry[1] for entry in self.heap]
        assert len(set(ids)) == len(ids), f"lane {self.key}: a request is queued twice"
        assert self._gone <= set(ids), f"lane {self.key}: what is gone is not in the heap"
        assert not self.heap or ids[0] not in self._gone, f"lane {self.key}: dead head"
