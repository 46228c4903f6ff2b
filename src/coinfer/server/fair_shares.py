"""FairShares: which tenant's request goes next, so that each gets its share of processors' time.

Start-time fair queueing (Goyal, Vin, Cheng: SIGCOMM 1996), interposed before an engine that has
several requests at a time (Jin, Chase, Kaur: SIGMETRICS 2004, SFQ(D)). A tenant has one start tag
rather than one per request, so that within a tenant the urgent ones may go first; and what a
request took, once that is known, takes the place of what it was expected to take.

Where the engine has enough, but not for all of its processors, some models' requests go beside the
turns. A tenant has a tag of its own for those. They compete only with what may go at that moment
too, so such a tag is compared with those of others whose requests wait for the same, and what a
tenant had while nobody else could have it counts for one request at most.

It knows no clock, thread or engine.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache

from coinfer.server.lazy_heap import LazyHeap
from coinfer.server.tenant_request import TenantRequest

__all__ = ["FairShares"]


class _Flow:
    """What a tenant has waiting.

    Attributes:
        start: The virtual time at which its next request begins.
        beside: The virtual time beside the turns at which its last request there began.
        beside_s: Seconds of processors that it had from then on.
        waited: Models whose requests waited already when one went beside the turns.
    """

    __slots__ = ("beside", "beside_s", "counts", "heaps", "n_held", "start", "waited", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.start = self.beside = self.beside_s = 0.0
        self.n_held = 0
        self.waited: set[str] = set()
        self.heaps: dict[str, LazyHeap[TenantRequest]] = {}
        self.counts: dict[tuple[str, int], int] = {}

    @property
    def next_beside(self) -> float:
        """The virtual time beside the turns at which its next request there begins."""
        return self.beside + self.beside_s / self.weight

    def first(self, models: Iterable[str]) -> TenantRequest:
        """Return the request that goes first, among those to some models."""
        firsts = (self.heaps[model].first() for model in models)
        return min(firsts, key=lambda first: first[0])[1]

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
            flow.waited.discard(request.model)

    def take(self, may_go: Callable[[str], bool] | None = None) -> TenantRequest | None:
        """Take the request that goes next; it is charged to its tenant.

        Args:
            may_go: Whether a request to a model may go. What goes because only some may goes beside
                the turns: it takes what only those can use. None: all may.

        Returns:
            The request; None: there is none that may go.
        """
        if may_go is not None:
            return self._take_beside(may_go)
        flows = [flow for flow in self._flows.values() if flow.n_held]
        if not flows:
            return None
        start = min(flow.start for flow in flows)
        firsts = (flow.first(flow.heaps) for flow in flows if flow.start == start)
        request = min(firsts, key=_order)
        self.remove(request)
        self.begin(request)
        return request

    def _take_beside(self, may_go: Callable[[str], bool]) -> TenantRequest | None:
        held = {model for flow in self._flows.values() for model in flow.heaps}
        able = {model for model in held if may_go(model)}
        if not able:
            return None
        waiting = [flow for flow in self._flows.values() if not able.isdisjoint(flow.heaps)]
        stayed = [flow.next_beside for flow in waiting if not able.isdisjoint(flow.waited)]
        now = min(stayed or [flow.next_beside for flow in waiting])
        firsts = []
        for flow in waiting:
            models = able.intersection(flow.heaps)
            flow.waited |= models
            if flow.next_beside < now:  # it asked for nothing: that is not made up for
                flow.beside, flow.beside_s = now, 0.0
            flow.beside = min(
                flow.beside, now
            )  # what nobody else could have is not held against it
            if flow.next_beside <= now:
                firsts.append(flow.first(models))
        request = min(firsts, key=_order)
        self.remove(request)
        request.is_beside = True
        request.charged_s = self._cost_s(request.model)
        flow = self._flow(request.tenant)
        flow.beside, flow.beside_s = now, request.charged_s
        return request

    def take_to(self, model: str) -> TenantRequest | None:
        """Take the request to a model that goes first, out of turn; it is charged to its tenant.

        Returns:
            The request; None: none is held.
        """
        flows = [flow for flow in self._flows.values() if model in flow.heaps]
        if not flows:
            return None
        flow = min(flows, key=lambda each: each.start)
        request = flow.first([model])
        self.remove(request)
        request.charged_s = self._cost_s(model)
        flow.start += request.charged_s / flow.weight
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
        flow = self._flow(request.tenant)
        if not request.is_beside:
            flow.start += (request.spent_s - request.charged_s) / flow.weight
            return
        flow.beside_s += request.spent_s - request.charged_s
        if request.is_misplaced:
            flow.start += request.spent_s / flow.weight

    def rest(self) -> None:
        """Nothing is held and nothing runs: what was is no longer held against anybody."""
        self._virtual = max((flow.start for flow in self._flows.values()), default=0.0)
        for flow in self._flows.values():
            flow.beside = flow.beside_s = 0.0

    def holds(self, model: str) -> bool:
        """Tell whether a request to a model is held back."""
        return any(model in flow.heaps for flow in self._flows.values())

    def held_by_model(self) -> Counter[str]:
        """Return how many requests are held back, by model."""
        held = Counter[str]()
        for flow in self._flows.values():
            for (model, _), count in flow.counts.items():
                held[model] += count
        return held

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

    def ahead_s(
        self,
        tenant: str,
        priority: int,
        cost_s: float,
        is_rival: Callable[[str], bool] = lambda _model: True,
    ) -> float:
        """Return what would go before a request that came now, in seconds of processors.

        Args:
            tenant: Whose request.
            priority: Of the request.
            cost_s: What it takes itself.
            is_rival: Whether it might wait for the same processor as requests to a model.
        """
        is_rival = cache(is_rival)
        own = self._flow(tenant)
        before_s = self._held_s(own, is_rival, priority)
        begins = (max(own.start, self._virtual) if not own.n_held else own.start) + (
            before_s / own.weight
        )
        for flow in self._flows.values():
            if flow is own or not flow.n_held:
                continue
            turn_s = (begins + cost_s / own.weight - flow.start) * flow.weight
            before_s += min(self._held_s(flow, is_rival), max(0.0, turn_s))
        return before_s

    def _held_s(
        self, flow: _Flow, is_rival: Callable[[str], bool], priority: float = -math.inf
    ) -> float:
        return sum(
            count * self._cost_s(model)
            for (model, level), count in flow.counts.items()
            if level >= priority and is_rival(model)
        )

    def _flow(self, tenant: str) -> _Flow:
        flow = self._flows.get(tenant)
        if flow is None:
            flow = self._flows[tenant] = _Flow(1.0)
        return flow


def _order(request: TenantRequest) -> tuple[float, ...]:
    return request.order


def _is_held(request: TenantRequest) -> bool:
    return request.is_held
