"""Live page: what the server does now, as a page at `/` and as JSON at `/state`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coinfer import __version__
from coinfer.server.http.reply import Reply, of_json, of_text
from coinfer.server.http.routes import Ask, Page
from coinfer.server.service import Service

__all__ = ["live_pages", "state_of"]

_FILE = Path(__file__).parent / "assets" / "live.html"
_SAFE = (
    b"content-security-policy",
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    b"connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'",
)
_FRESH = (b"cache-control", b"no-store")


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
    if engine is None:
        return state
    stats, held, names = engine.stats(), service.held(), {}
    state["up_s"] = stats.up_s
    for model in list(service.catalogue):
        names[model.engine_name] = model.name
        found = stats.models.get(model.engine_name)
        if found is None:
            continue
        said: dict[str, Any] = {"name": model.name, "version": model.version}
        for outcome in ("completed", "late", "dropped", "failed", "rejected", "running"):
            said[outcome] = getattr(found, outcome)
        said["rejected"] += service.statistics.models[model.engine_name].refused
        waiting = found.queue + held[model.engine_name]
        said |= {"waiting": waiting, "p50_ms": found.latency_ms.p50}
        state["models"].append({**said, "p99_ms": found.latency_ms.p99})
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
    state["misses"] = [
        {"model": names.get(model, model), "at_s": at_s, "why": why}
        for model, at_s, why in list(service.statistics.last_misses)
    ]
    return state
