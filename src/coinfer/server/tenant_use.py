"""TenantUse: what a tenant may and did ask for, from its tokens and from the queue of tenants."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from coinfer.server.access import Tenant
from coinfer.server.tenant_queue import TenantQueue

__all__ = ["TenantUse", "tenant_uses"]


@dataclass(slots=True, kw_only=True)
class TenantUse:
    """A tenant, over all of its tokens.

    Attributes:
        name: Its name.
        rate_per_s: Inferences that it may ask for per second; None: any number.
        weight: Its share beside others'; None: no tenant has one.
        requests: Inferences that were taken.
        too_often: Inferences that were refused because they came too often.
        refused: Inferences that were refused because too many waited; without weights, that is not
            counted by tenant.
        waiting: Inferences that wait for their turn.
        processor_s: What its answered requests took of processors; None without weights.
    """

    name: str
    rate_per_s: float | None = None
    weight: float | None = None
    requests: int = 0
    too_often: int = 0
    refused: int = 0
    waiting: int = 0
    processor_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as the live page gets it."""
        return asdict(self)


def tenant_uses(tokens: Iterable[Tenant], queue: TenantQueue | None) -> list[TenantUse]:
    """Return what each tenant may and did ask for.

    Args:
        tokens: Who may ask; several may be of one tenant.
        queue: Where requests wait for their turn; None: tenants have no weights.

    >>> tenant = Tenant("a", "0123456789abcdef", rate_per_s=2.0)
    >>> tenant.take()
    >>> [use] = tenant_uses([tenant], None)
    >>> use.rate_per_s, use.requests, use.too_often
    (2.0, 1, 0)
    """
    found: dict[str, TenantUse] = {}
    for token in tokens:
        use = found.setdefault(token.name, TenantUse(name=token.name, rate_per_s=0.0))
        assert use.rate_per_s is not None
        use.rate_per_s += token.rate_per_s  # each of its tokens has a rate of its own
        use.requests += token.n_taken
        use.too_often += token.n_too_often
    for use in found.values():
        use.rate_per_s = None if use.rate_per_s == math.inf else use.rate_per_s
    for counts in [] if queue is None else queue.counts():
        use = found.setdefault(counts.tenant, TenantUse(name=counts.tenant))
        use.weight, use.requests = counts.weight, counts.requests
        use.refused, use.waiting = counts.refused, counts.waiting
        use.processor_s = counts.seconds
    return list(found.values())
