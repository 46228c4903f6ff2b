"""FairShares: which tenant's request goes next, so that each gets its share of processors' time.

Start-time fair queueing (Goyal, Vin, Cheng: SIGCOMM 1996), interposed before an engine that has
several requests at a time (Jin, Chase, Kaur: SIGMETRICS 2004, SFQ(D)). A tenant has one start tag
rather than one per request, so that within a tenant the urgent ones may go first; and what a
request took, once that is known, takes the place of what it was expected to take. It knows no
clock, thread or engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from coinfer.server.lazy_heap import LazyHeap
from coinfer.server.tenant_request import TenantRequest

__all__ = ["FairShares"]


class _Flow:
    """What a tenant has waiting; `start` is the virtual time at which its next request begins."""

    __slots__ = ("counts", "heaps", "n_held", "start", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.start = 0.0
        self.n_held = 0
        self.heaps: dict[str, LazyHeap[TenantRequest]] = {}
        self.counts: dict[tuple[str, int], int] = {}

    def note(self, request: TenantRequest, change: int) -> None:
        key = (request.model, request.priority)
        self.n_held += change
        count = self.counts.get(key, 0) + change
        if count:
            self.counts[key] = count
        else:
            del self.counts[key]


class FairShares:
    """Holds the requests of tenants back, and says which goes next. For one thread at a time.

    Args:
        weights: By tenant; others have 1.
        cost_s: Seconds of processors that a request to a model is expected to take.

    Attributes:
        n_held: Requests that are held back.

    Two tenants of which one has twice the weight, and requests that take one second each:

    >>> shares = FairShares({"a": 2.0}, lambda model: 1.0)
    >>> for number in range(6):
    ...     for tenant in "ab":
    ...         shares.add(TenantRequest(tenant, "m", number))
    >>> [shares.take().tenant for _ in range(9)]
    ['a', 'b', 'a', 'b', 'a', 'a', 'b', 'a', 'a']
    """

    def __init__(self, weights: Mapping[str, float], cost_s: Callable[[str], float]) -> None:
        self.n_held = 0
        self._cost_s = cost_s
        self._virtual = 0.0
        self._flows = {name: _Flow(weight) for name, weight in weights.items()}

    def add(self, request: TenantRequest) -> None:
        """Hold a request back."""
        flow = self._flow(request.tenant)
        if not flow.n_held:
            flow.start = max(flow.start, self._virtual)
        heap = flow.heaps.get(request.model)
        if heap is None:
            heap = flow.heaps[request.model] = LazyHeap(_is_held)
        heap.push(request.order, request)
        request.is_held = True
        flow.note(request, 1)
        self.n_held += 1

    def remove(self, request: TenantRequest) -> None:
        """Hold a request no longer: it is not wanted any more, or goes out of turn."""
        flow = self._flow(request.tenant)
        request.is_held = False
        flow.note(request, -1)
        self.n_held -= 1
        heap = flow.heaps[request.model]
        heap.n_gone += 1
        if heap.is_empty:
            del flow.heaps[request.model]

    def take(self, may_go: Callable[[str], bool] | None = None) -> TenantRequest | None:
        """Take the request that goes next; it is charged to its tenant.

        Args:
            may_go: Whether a request to a model may go. What goes because only some may is not
                charged: it takes what nobody else that waits can use. None: all may.

        Returns:
            The request; None: there is none that may go.
        """
        best: tuple[float, tuple[float, ...], TenantRequest] | None = None
        for flow in self._flows.values():
            if not flow.n_held or (best is not None and flow.start > best[0]):
                continue
            for model, heap in flow.heaps.items():
                if may_go is not None and not may_go(model):
                    continue
                order, request = heap.first()
                if best is None or (flow.start, order) < best[:2]:
                    best = (flow.start, order, request)
        if best is None:
            return None
        request = best[2]
        self.remove(request)
        if may_go is None:
            self.begin(request)
        else:
            request.is_free = True
        return request

    def begin(self, request: TenantRequest) -> None:
        """Charge a request that goes at once to its tenant."""
        flow = self._flow(request.tenant)
        flow.start = max(flow.start, self._virtual) if not flow.n_held else flow.start
        self._virtual = max(self._virtual, flow.start)
        request.charged_s = self._cost_s(request.model)
        flow.start += request.charged_s / flow.weight

    def settle(self, request: TenantRequest) -> None:
        """Replace what a request was expected to take by what it took."""
        if request.is_free:
            return
        flow = self._flow(request.tenant)
        flow.start += (request.spent_s - request.charged_s) / flow.weight

    def rest(self) -> None:
        """Nothing is held and nothing runs: what was is no longer held against anybody."""
        self._virtual = max((flow.start for flow in self._flows.values()), default=0.0)

    def held_of(self, tenant: str) -> int:
        """Return how many requests of a tenant are held back."""
        flow = self._flows.get(tenant)
        return 0 if flow is None else flow.n_held

    def weight_of(self, tenant: str) -> float:
        """Return the weight of a tenant."""
        return self._flow(tenant).weight

    def share_of(self, tenant: str) -> float:
        """Return the part of all tenants' weights that is a tenant's, from 0 to 1."""
        own = self.weight_of(tenant)
        return own / math.fsum(flow.weight for flow in self._flows.values())

    def tenants(self) -> Iterator[str]:
        """Iterate over the names of all tenants that there are or were."""
        return iter(list(self._flows))

    def ahead_s(self, tenant: str, priority: int, cost_s: float) -> float:
        """Return what would go before a request that came now, in seconds of processors.

        Args:
            tenant: Whose request.
            priority: Of the request.
            cost_s: What it takes itself.
        """
        own = self._flow(tenant)
        before_s = self._held_s(own, priority)
        begins = (max(own.start, self._virtual) if not own.n_held else own.start) + (
            before_s / own.weight
        )
        for flow in self._flows.values():
            if flow is own or not flow.n_held:
                continue
            turn_s = (begins + cost_s / own.weight - flow.start) * flow.weight
            before_s += min(self._held_s(flow), max(0.0, turn_s))
        return before_s

    def _held_s(self, flow: _Flow, priority: float = -math.inf) -> float:
        cost_s = self._cost_s
        counts = flow.counts.items()
        return sum(count * cost_s(model) for (model, level), count in counts if level >= priority)

    def _flow(self, tenant: str) -> _Flow:
        flow = self._flows.get(tenant)
        if flow is None:
            flow = self._flows[tenant] = _Flow(1.0)
        return flow


def _is_held(request: TenantRequest) -> bool:
    return request.is_held
