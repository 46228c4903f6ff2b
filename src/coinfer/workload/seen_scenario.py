"""Seen scenario: the load that was seen, as a scenario that repeats it. Opens no model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from coinfer.core.limits import Limits
from coinfer.core.request import Request
from coinfer.plan.model_plan import ModelPlan
from coinfer.workload.scenario import Scenario
from coinfer.workload.seen_requests import promise_of

__all__ = ["seen_scenario"]

_WARMUP_SHARE = 0.1
"""Of the time seen, what is not counted: the simulation begins with nothing waiting."""

_NO_LIMIT = 10**9


def seen_scenario(
    requests: Sequence[Request], models: Mapping[str, ModelPlan], limits: Limits = Limits()
) -> Scenario:
    """Return a scenario whose requests come when those came that were seen.

    Each model is promised what most of its requests were, and they have as many samples as most of
    them had. Where its dimensions are open, each is of the planned sizes whose work is next to its
    own, as often. A caller that waits for an answer before it asks again is taken for one that
    asks at these times.

    Args:
        requests: What was seen; at least one.
        models: The planned models, those of all requests among them.
        limits: What the core enforces.

    >>> from coinfer.core.request import Request
    >>> seen = [Request(id=n, model="m", arrival_s=0.5 * n) for n in range(3)]
    >>> scenario = seen_scenario(seen, {"m": ModelPlan()})
    >>> scenario.end_s, scenario.processes["m"].source
    (1.5, (0.0, 0.5, 1.0))
    """
    begin_s = min(request.arrival_s for request in requests)
    seen_s = max(request.arrival_s for request in requests) - begin_s
    # So many requests have one gap less between them than belongs to them.
    n_gaps = max(1, len(requests) - 1)
    end_s = max(seen_s * len(requests) / n_gaps, math.nextafter(seen_s, math.inf), 1e-3)
    by_model: dict[str, list[Request]] = {}
    for request in requests:
        by_model.setdefault(request.model, []).append(request)
    return Scenario.model_validate(
        {
            "name": "seen",
            "models": {n: _spec(n, of, models[n]) for n, of in by_model.items()},
            "arrivals": {
                name: {"trace": [request.arrival_s - begin_s for request in of]}
                for name, of in by_model.items()
            },
            "warmup": _WARMUP_SHARE * end_s,
            "duration": end_s - _WARMUP_SHARE * end_s,
            "admission_limit": limits.max_waiting or _NO_LIMIT,
            "max_blocking": limits.max_blocking_s,
        }
    )


def _spec(name: str, requests: Sequence[Request], model: ModelPlan) -> dict[str, Any]:
    promise = Counter(map(promise_of, requests)).most_common(1)[0][0]
    spec: dict[str, Any] = {
        "source": model.source or f"{name}.onnx",  # which nobody opens
        "priority": promise.priority,
        "batch": Counter(request.batch for request in requests).most_common(1)[0][0],
    }
    if promise.deadline_s < math.inf:
        spec |= {"deadline": promise.deadline_s, "on_late": promise.on_late}
    if model.work is not None and model.sizes:
        spec["dims"] = _dims(requests, model)
    return spec


def _dims(requests: Sequence[Request], model: ModelPlan) -> list[dict[str, float]]:
    """Return planned sizes, each as often as requests of about as much work came."""
    assert model.work is not None
    classes = {model.work.size_class(sizes): sizes for sizes in model.sizes}
    counts: Counter[int] = Counter()
    for shape, count in Counter(request.shape for request in requests).items():
        counts[min(classes, key=lambda known: abs(known - shape))] += count
    return [{**classes[shape], "weight": count} for shape, count in counts.items()]
