"""Live page: what the server does now, as a page at `/` and as JSON at `/state`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coinfer import __version__
from coinfer.metrics.summary import LatencySummary
from coinfer.server.http.reply import Reply, of_json, of_text
from coinfer.server.http.routes import Ask, Page
from coinfer.server.service import Service
from coinfer.server.tenant_use import tenant_uses

__all__ = ["live_pages", "state_of"]

_FILE = Path(__file__).parent / "assets" / "live.html"
_SAFE = (
    b"content-security-policy",
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    b"connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'",
)
_FRESH = (b"cache-control", b"no-store")
_OUTCOMES = ("completed", "late", "dropped", "failed", "rejected", "running")


def live_pages(service: Service) -> Mapping[str, Page]:
    """Return what answers `/` and `/state`; the page loads nothing from anywhere else."""
    text = _FILE.read_text(encoding="utf-8")

    async def page(_ask: Ask) -> Reply:
        return of_text(text, "text/html; charset=utf-8", (_SAFE,))

    async def state(_ask: Ask) -> Reply:
        return of_json(state_of(service), headers=(_FRESH,))

    return {"": page, "state": state}


def state_of(service: Service) -> dict[str, Any]:
    """Return what the page shows."""
    engine = service.engine
    state: dict[str, Any] = {"version": __version__, "ready": service.is_ready, "up_s": 0.0}
    state |= {"models": [], "processors": [], "memory": [], "misses": []}
    state["tenants"] = []
    if engine is None:
        return state
    stats, held, names = engine.stats(), service.held(), {}
    state["up_s"] = stats.up_s
    for model in list(service.catalogue):
        names[model.engine_name] = model.name
        counts = service.statistics.models[model.engine_name]
        waiting, latency_ms = held[model.engine_name], LatencySummary()
        said: dict[str, Any] = {"name": model.name, "version": model.version, "kind": "model"}
        ensemble = service.ensembles.of(model)
        if ensemble is not None:  # what of it waits in the engine is its models'
            said |= {**counts.outcomes(), "running": ensemble.n_under_way, "kind": "ensemble"}
            latency_ms = counts.latency_ms()
        elif (found := stats.models.get(model.engine_name)) is not None:
            said |= {name: getattr(found, name) for name in _OUTCOMES}
            said["rejected"] += counts.refused
            waiting, latency_ms = waiting + found.queue, found.latency_ms
        else:
            continue
        said |= {"waiting": waiting, "p50_ms": latency_ms.p50, "p99_ms": latency_ms.p99}
        state["models"].append(said)
    for name, use in stats.processors.items():
        state["processors"].append(
            {
                "name": name,
                "busy": use.busy_fraction,
                "executions": use.executions,
                "failed": use.failed,
                "resident_bytes": use.resident_bytes,
            }
        )
    for name, budget in stats.memory.budget_bytes.items():
        resident = stats.memory.resident_bytes.get(name, 0)
        state["memory"].append({"name": name, "budget_bytes": budget, "resident_bytes": resident})
    state["tenants"] = [use.to_json() for use in tenant_uses(service.tokens, service.tenants)]
    state["misses"] = [
        {"model": names.get(model, model), "at_s": at_s, "why": why}
        for model, at_s, why in list(service.statistics.last_misses)
    ]
    return state
