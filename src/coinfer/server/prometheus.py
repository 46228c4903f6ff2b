"""Prometheus: what the server and its engine did, as metrics. Counts nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coinfer import __version__
from coinfer.ensembles import Ensemble
from coinfer.metrics.summary import LatencySummary
from coinfer.runtime.engine_stats import EngineStats, ModelStats
from coinfer.server.http.reply import Reply
from coinfer.server.http.routes import Ask, Page
from coinfer.server.served_model import ServedModel
from coinfer.server.service import Service
from coinfer.server.statistics import ModelStatistics
from coinfer.server.tenant_queue import TenantCounts
from coinfer.server.tenant_use import TenantUse, tenant_uses

__all__ = ["metrics_page"]

_KIND = b"text/plain; version=0.0.4; charset=utf-8"
_MODEL = ("model", "version")
_US = 1e6
_OUTCOMES = ("completed", "late", "dropped", "failed", "rejected", "cancelled")
_QUANTILES = (("p50", "0.5"), ("p90", "0.9"), ("p95", "0.95"), ("p99", "0.99"))


def metrics_page(service: Service, *, has_triton_names: bool = False) -> Page:
    """Return what answers `/metrics`.

    Args:
        service: Whose metrics.
        has_triton_names: Whether there are Triton's names beside ours.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(service))
    if has_triton_names:
        registry.register(_TritonCollector(service))

    async def page(_ask: Ask) -> Reply:
        return Reply(200, ((b"content-type", _KIND),), (generate_latest(registry),))

    return page


class _Collector(Collector):
    """Our metrics."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        service = self._service
        info = GaugeMetricFamily("coinfer_info", "Version", labels=("version",))
        info.add_metric((__version__,), 1)
        yield info
        ready = GaugeMetricFamily("coinfer_ready", "Whether requests are taken")
        ready.add_metric((), float(service.is_ready))
        yield ready
        if service.engine is None:
            return
        stats = service.engine.stats()
        yield from self._of_models(stats)
        yield from _of_processors(stats)
        yield from _of_memory(stats)
        yield from _of_policy(stats)
        if service.tenants is not None:
            yield from _of_tenants(service.tenants.counts())
        limited = [u for u in tenant_uses(service.tokens, None) if u.rate_per_s is not None]
        if limited:
            yield _of_rates(limited)

    def _of_models(self, stats: EngineStats) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "coinfer_requests",
            "Requests by what became of them; the late are among the completed",
            labels=(*_MODEL, "outcome"),
        )
        waiting = GaugeMetricFamily("coinfer_requests_waiting", "Requests that wait", labels=_MODEL)
        running = GaugeMetricFamily("coinfer_requests_running", "Requests that run", labels=_MODEL)
        retried = CounterMetricFamily(
            "coinfer_retries", "Failed runs that were tried again", labels=_MODEL
        )
        latency = GaugeMetricFamily(
            "coinfer_latency_seconds",
            "Latency of the last 1,024 completed requests",
            labels=(*_MODEL, "quantile"),
        )
        queue = CounterMetricFamily(
            "coinfer_queue_seconds", "Time that completed requests waited", labels=_MODEL
        )
        run = CounterMetricFamily(
            "coinfer_run_seconds", "Time that completed requests ran", labels=_MODEL
        )
        executions = CounterMetricFamily("coinfer_executions", "Runs", labels=_MODEL)
        samples = CounterMetricFamily(
            "coinfer_samples", "Samples in completed requests", labels=_MODEL
        )
        held = self._service.held()
        for model, found, counts in self._served(stats):
            key = (model.name, model.version)
            for outcome in _OUTCOMES:
                count = getattr(found, outcome)
                count += counts.refused if outcome == "rejected" else 0
                requests.add_metric((*key, outcome), count)
            waiting.add_metric(key, found.queue + held[model.engine_name])
            running.add_metric(key, found.running)
            retried.add_metric(key, found.retried)
            _add_latencies(latency, key, found.latency_ms)
            queue.add_metric(key, counts.queue_s)
            run.add_metric(key, counts.run_s)
            executions.add_metric(key, counts.executions)
            samples.add_metric(key, counts.samples)
        for model, ensemble, counts in self._ensembles():
            key = (model.name, model.version)
            for outcome, count in counts.outcomes().items():
                requests.add_metric((*key, outcome), count)
            # What of it waits in the engine is its models'.
            waiting.add_metric(key, held[model.engine_name])
            running.add_metric(key, ensemble.n_under_way)
            _add_latencies(latency, key, counts.latency_ms())
        yield from (requests, waiting, running, retried, latency, queue, run, executions, samples)

    def _served(
        self, stats: EngineStats
    ) -> Iterator[tuple[ServedModel, ModelStats, ModelStatistics]]:
        counted = self._service.statistics.models
        for model in list(self._service.catalogue):
            found = stats.models.get(model.engine_name)
            if found is not None:
                yield model, found, counted[model.engine_name]

    def _ensembles(self) -> Iterator[tuple[ServedModel, Ensemble, ModelStatistics]]:
        service = self._service
        for model in list(service.catalogue):
            ensemble = service.ensembles.of(model)
            if ensemble is not None:
                yield model, ensemble, service.statistics.models[model.engine_name]


def _add_latencies(
    family: GaugeMetricFamily, key: tuple[str, str], latency_ms: LatencySummary
) -> None:
    for name, quantile in _QUANTILES:
        ms = getattr(latency_ms, name)
        if ms is not None:
            family.add_metric((*key, quantile), ms / 1000)


def _of_processors(stats: EngineStats) -> Iterator[Metric]:
    labels = ("processor",)
    busy = GaugeMetricFamily(
        "coinfer_processor_busy_ratio", "Share of the time since the start it ran", labels=labels
    )
    runs = CounterMetricFamily("coinfer_processor_executions", "Runs that ended", labels=labels)
    failed = CounterMetricFamily("coinfer_processor_failures", "Runs that failed", labels=labels)
    resident = GaugeMetricFamily(
        "coinfer_processor_resident_bytes", "Bytes of what is loaded, as profiled", labels=labels
    )
    for name, found in stats.processors.items():
        busy.add_metric((name,), found.busy_fraction)
        runs.add_metric((name,), found.executions)
        failed.add_metric((name,), found.failed)
        resident.add_metric((name,), found.resident_bytes)
    yield from (busy, runs, failed, resident)


def _of_memory(stats: EngineStats) -> Iterator[Metric]:
    labels = ("memory",)
    budget = GaugeMetricFamily("coinfer_memory_budget_bytes", "Budget", labels=labels)
    taken = GaugeMetricFamily("coinfer_memory_resident_bytes", "Loaded", labels=labels)
    for name, size in stats.memory.budget_bytes.items():
        budget.add_metric((name,), size)
    for name, size in stats.memory.resident_bytes.items():
        taken.add_metric((name,), size)
    loads = CounterMetricFamily("coinfer_loads", "Loads that ended well")
    loads.add_metric((), stats.memory.loads)
    evictions = CounterMetricFamily("coinfer_evictions", "Evictions")
    evictions.add_metric((), stats.memory.evictions)
    up = GaugeMetricFamily("coinfer_up_seconds", "Seconds since the engine's start")
    up.add_metric((), stats.up_s)
    yield from (budget, taken, loads, evictions, up)


def _of_policy(stats: EngineStats) -> Iterator[Metric]:
    policy = GaugeMetricFamily("coinfer_policy", "The policy that decides", labels=("policy",))
    policy.add_metric((stats.policy.name,), 1)
    changes = CounterMetricFamily("coinfer_policy_changes", "Changes of the policy")
    changes.add_metric((), stats.policy.changes)
    yield from (policy, changes)


def _of_tenants(counts: Iterable[TenantCounts]) -> Iterator[Metric]:
    labels = ("tenant",)
    weight = GaugeMetricFamily("coinfer_tenant_weight", "Weight of a tenant", labels=labels)
    requests = CounterMetricFamily(
        "coinfer_tenant_requests", "Inferences of a tenant that were taken", labels=labels
    )
    refused = CounterMetricFamily(
        "coinfer_tenant_refused", "Those refused because too many waited", labels=labels
    )
    seconds = CounterMetricFamily(
        "coinfer_tenant_processor_seconds",
        "What answered inferences of a tenant took of processors",
        labels=labels,
    )
    held = GaugeMetricFamily(
        "coinfer_tenant_requests_held", "Inferences that wait for their turn", labels=labels
    )
    for each in counts:
        weight.add_metric((each.tenant,), each.weight)
        requests.add_metric((each.tenant,), each.requests)
        refused.add_metric((each.tenant,), each.refused)
        seconds.add_metric((each.tenant,), each.seconds)
        held.add_metric((each.tenant,), each.waiting)
    yield from (weight, requests, refused, seconds, held)


def _of_rates(uses: Iterable[TenantUse]) -> Metric:
    family = CounterMetricFamily(
        "coinfer_tenant_too_often",
        "Inferences of a tenant that were refused because it asked too often",
        labels=("tenant",),
    )
    for each in uses:
        family.add_metric((each.name,), each.too_often)
    return family


class _TritonCollector(Collector):
    """The metrics that Triton has, as far as they mean something here."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        service = self._service
        if service.engine is None:
            return
        stats, held = service.engine.stats(), service.held()
        counts: dict[str, Callable[[ModelStatistics], int]] = {
            "request_success": lambda m: m.completed,
            "inference_count": lambda m: m.samples,
            "inference_exec_count": lambda m: m.executions,
            "inference_request_duration_us": lambda m: int(m.total_s * _US),
            "inference_queue_duration_us": lambda m: int(m.queue_s * _US),
            "inference_compute_infer_duration_us": lambda m: int(m.run_s * _US),
        }
        models = [
            (each, service.statistics.models[each.engine_name]) for each in list(service.catalogue)
        ]
        for name, count in counts.items():
            text = name if name.startswith("inference") else f"inference_{name}"
            family = _Plain(f"nv_{text}", "counter")
            for model, found in models:
                family.add_sample(family.name, _labels(model.name, model.version), count(found))
            yield family
        failures = _Plain("nv_inference_request_failure", "counter")
        pending = _Plain("nv_inference_pending_request_count", "gauge")
        for model, found in models:
            labels = _labels(model.name, model.version)
            for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER"):
                failures.add_sample(
                    failures.name, {**labels, "reason": reason}, found.failures.get(reason, 0)
                )
            engine_stats = stats.models.get(model.engine_name)
            if engine_stats is not None:
                waiting = engine_stats.queue + held[model.engine_name]
                pending.add_sample(pending.name, labels, waiting)
        yield from (failures, pending)


class _Plain(Metric):
    """A metric whose name is taken as it is: Triton's counters do not end in `_total`."""

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(name, f"As Triton's {name}", "unknown")
        self.type = "unknown" if kind == "counter" else kind


def _labels(model: str, version: str) -> dict[str, str]:
    return {"model": model, "version": version}
