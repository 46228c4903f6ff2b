"""Summary: the figures of one run, as values and as JSON. Does not show them.

The JSON has the same shape whether a run was real or simulated, and whatever happened in it:
figures that do not exist (the p99 of no completion, the hit rate without deadlines) are null.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Self, TypeAlias

from coinfer.core.request import Outcome
from coinfer.errors import ConfigurationError
from coinfer.machine.processor import Processor
from coinfer.metrics.counts import ModelCounts, ProcessorCounts, RunCounts
from coinfer.metrics.latency import ExactLatencies, Latencies
from coinfer.metrics.memory_track import ProcessMemory
from coinfer.metrics.served_by import mean_error
from coinfer.metrics.xrbench import XRBenchScore, xrbench_score

__all__ = [
    "BoundSummary",
    "LatencySummary",
    "MemorySummary",
    "MixOf",
    "ModelSummary",
    "ProcessorSummary",
    "Summary",
    "TotalsSummary",
    "latency_summary",
    "plain",
    "summarise",
]

MixOf: TypeAlias = Literal["offered", "served"]
"""Whether a bound is for the mix that was offered or for the one that was served."""

_FEW_COMPLETIONS = 100
"""Below this, p99 is the slowest request or nearly so."""

_BOUND_ALLOWANCE = 1.02
"""How far a run may exceed its bound by noise of the profile before that is worth a warning."""

_SHOWN = 0.0005
"""A share above 1 by less than this is shown as 100.0%."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySummary:
    """Latency of the completed requests from due to answered, in ms; None where none completed."""

    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """One model's requests that were due in the measuring window.

    Attributes:
        submitted: All of them: completed + dropped + rejected + failed + cancelled + unfinished.
        completed: Answered with a result, in the window or later.
        late: Those of the completed that were answered after their deadline.
        dropped: The deadline passed, or could not be met, before the start.
        rejected: The admission limit was reached.
        failed: Answered with an error.
        cancelled: Cancelled by the caller.
        unfinished: Not answered when the summary was made.
        throughput_per_s: Completions in the window per second of it, whenever they were due.
        deadline_hit_rate: Share of *all* requests with a deadline that were completed in time;
            whatever was not completed is a miss. None if no request had a deadline.
        latency_ms: Of the completed.
        withheld: Requests that were never made, because the one that they come after was not
            completed; not among the submitted ones.
        retried: How often one of them ran again because a run of it had failed.
        shared: Executions in the window that served several requests, by how many; of a model that
            is cut, those of its spans.
        variants: Of a model with several variants, how many of the completed each served.
        mean_error: Of such a model, the mean over the completed of the stated output error of the
            variant that served it.
    """

    submitted: int
    completed: int
    late: int
    dropped: int
    failed: int
    throughput_per_s: float
    deadline_hit_rate: float | None
    latency_ms: LatencySummary
    rejected: int = 0
    cancelled: int = 0
    unfinished: int = 0
    withheld: int = 0
    retried: int = 0
    shared: Mapping[int, int] = field(default_factory=dict)
    variants: Mapping[str, int] = field(default_factory=dict)
    mean_error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorSummary:
    """One processor in the measuring window.

    Attributes:
        backend: Name of its backend.
        units: Compute units it occupies.
        precision: What it computes in.
        busy_fraction: Share of the window that it was given to executions.
        executions: Executions that ended in the window.
        failed: Those of them that failed or were abandoned.
        output_errors: By model, the measured relative output error against fp32, where a
            precision below fp32 is in use.
    """

    backend: str
    units: tuple[str, ...]
    precision: str
    busy_fraction: float
    executions: int
    failed: int = 0
    output_errors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedSummary:
    """The runs of a fused variant that ended well in the measuring window.

    Attributes:
        slots: Requests that one of them could serve, one of each of its models.
        served: The runs, by how many requests they served.
        padded: Slots in all of them of which nobody wanted anything.
    """

    slots: int
    served: Mapping[int, int]
    padded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalsSummary:
    """All models together; fields as in `ModelSummary`."""

    submitted: int
    completed: int
    throughput_per_s: float
    late: int = 0
    dropped: int = 0
    failed: int = 0
    rejected: int = 0
    cancelled: int = 0
    unfinished: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundSummary:
    """The best throughput of any schedule in the long run, and the share of it reached.

    Attributes:
        throughput_per_s: For the mix.
        fraction: Share of it that was reached.
        mix_of: Whether the mix is what was offered or what was served.
    """

    throughput_per_s: float | None = None
    fraction: float | None = None
    mix_of: MixOf = "offered"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySummary:
    """What was loaded and evicted within a memory budget, in the measuring window.

    Attributes:
        budget_bytes: By name of the memory.
        loads: Loads that ended well.
        failed: Loads that failed.
        evictions: What was evicted.
        load_s: Seconds in which the loader worked.
        loaded_bytes: What it brought.
        believed_bytes: By memory, the most that was taken at a time, as it was believed.
        held: What the system said that the process held when it held most, of its own and of files;
            None where that was not measured.
        held_before: What it held before anything was loaded.
        least_load_s: Seconds per request that any schedule loads for, as far as that is known.
    """

    budget_bytes: Mapping[str, int]
    loads: int = 0
    failed: int = 0
    evictions: int = 0
    load_s: float = 0.0
    loaded_bytes: int = 0
    believed_bytes: Mapping[str, int] = field(default_factory=dict)
    held: ProcessMemory | None = None
    held_before: ProcessMemory | None = None
    least_load_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures of one run.

    Attributes:
        scenario: Its name.
        mode: `run` or `simulate`.
        policy: Name of the policy.
        seed: Seed of arrivals and inputs.
        duration_s: Length of the measuring window, warm-up excluded.
        environment: Machine and library versions; JSON values only.
        models: By name.
        processors: By name.
        totals: All models together.
        bound: The bound beside the result.
        score: The score that the scenario asks for; None if it asks for none.
        fused: The fused variants, by name.
        memory: What was loaded and evicted; None without a budget.
        warnings: What a reader must know before believing the figures.
    """

    scenario: str
    mode: str
    policy: str
    seed: int
    duration_s: float
    environment: Mapping[str, Any]
    models: Mapping[str, ModelSummary]
    processors: Mapping[str, ProcessorSummary]
    totals: TotalsSummary
    bound: BoundSummary = BoundSummary()
    score: XRBenchScore | None = None
    fused: Mapping[str, FusedSummary] = field(default_factory=dict)
    memory: MemorySummary | None = None
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json.dumps` writes and `from_json` reads."""
        return plain(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read what `to_json` wrote; fields that a later version added are ignored.

        Raises:
            ConfigurationError: not a summary; names the first field that is wrong.
        """
        # Imported here because it is slow to import and only comparing files needs it.
        from pydantic import TypeAdapter, ValidationError

        try:
            # No figure is infinite, nor NaN.
            return TypeAdapter(cls).validate_json(json.dumps(data, allow_nan=False), strict=True)
        except (ValidationError, TypeError, ValueError) as error:
            raise ConfigurationError(f"not the JSON of a run: {_fault_of(error)}") from error


def plain(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as JSON knows them: tuples become lists."""
    data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(value)))
    return data


def summarise(
    run_counts: RunCounts,
    *,
    scenario: str,
    mode: str,
    policy: str,
    seed: int,
    processors: Sequence[Processor],
    models: Iterable[str] = (),
    environment: Mapping[str, Any] | None = None,
    bound_per_s: float | None = None,
    mix_of: MixOf = "offered",
    output_errors: Mapping[str, Mapping[str, float]] | None = None,
    variant_errors: Mapping[str, float] = MappingProxyType({}),
    fused: Mapping[str, Sequence[str]] | None = None,
    memory: Mapping[str, int] | None = None,
    held_before: ProcessMemory | None = None,
    least_load_s: float | None = None,
    warnings: Iterable[str] = (),
) -> Summary:
    """Make the figures of a run from its counts.

    Args:
        run_counts: What `Recorder.run_counts` returned at the end.
        scenario: Name of the scenario.
        mode: `run` or `simulate`.
        policy: Name of the policy.
        seed: Seed of the run.
        processors: Those of the machine; each gets a row, also one that never ran.
        models: Listed first and in this order, also those that were never asked for.
        environment: Machine and library versions.
        bound_per_s: The bound, if there is one.
        mix_of: Whether it is for the mix that was offered or for the one that was served.
        output_errors: Measured relative output error against fp32, `{processor: {model: error}}`.
        variant_errors: Stated output error of variants by name.
        fused: By fused variant, the models that it answers.
        memory: Bytes for what is loaded, by name of the memory, if it has a budget.
        held_before: What the process held before anything was loaded, if that was measured.
        least_load_s: Seconds per request that any schedule loads for; the bound regards it.
        warnings: Put before those found here.
    """
    names = dict.fromkeys([*models, *run_counts.models])
    rows = {name: _model(name, run_counts, variant_errors) for name in names}
    totals = _totals(rows.values())
    bound = _bound(totals.throughput_per_s, bound_per_s, mix_of)
    return Summary(
        scenario=scenario,
        mode=mode,
        policy=policy,
        seed=seed,
        duration_s=run_counts.duration_s,
        environment=dict(environment or {}),
        models=rows,
        processors={
            p.name: _processor(p, run_counts, dict((output_errors or {}).get(p.name, {})))
            for p in processors
        },
        totals=totals,
        bound=bound,
        score=xrbench_score(run_counts, names),
        fused={
            name: _fused(len(members), run_counts.fused.get(name, {}))
            for name, members in (fused or {}).items()
        },
        memory=_memory(memory, run_counts, held_before, least_load_s) if memory else None,
        warnings=(*warnings, *_warnings(rows), *_excess(bound, mode, run_counts)),
    )


def _memory(
    budgets: Mapping[str, int],
    run_counts: RunCounts,
    held_before: ProcessMemory | None,
    least_load_s: float | None,
) -> MemorySummary:
    counts = run_counts.memory
    return MemorySummary(
        budget_bytes=dict(budgets),
        believed_bytes=dict(counts.believed),
        held=counts.held,
        held_before=held_before,
        least_load_s=least_load_s,
        **dataclasses.asdict(run_counts.loads),
    )


def _per_s(count: float, duration_s: float) -> float:
    return count / duration_s if duration_s > 0 else 0.0


def _model(name: str, run_counts: RunCounts, variant_errors: Mapping[str, float]) -> ModelSummary:
    counts = run_counts.models.get(name) or ModelCounts(ExactLatencies())
    return ModelSummary(
        submitted=counts.submitted,
        completed=counts.completed,
        late=counts.late,
        dropped=counts.others[Outcome.DROPPED],
        rejected=counts.others[Outcome.REJECTED],
        failed=counts.others[Outcome.FAILED],
        cancelled=counts.others[Outcome.CANCELLED],
        unfinished=counts.unfinished,
        throughput_per_s=_per_s(counts.served, run_counts.duration_s),
        deadline_hit_rate=counts.hits / counts.with_deadline if counts.with_deadline else None,
        latency_ms=latency_summary(counts.latencies),
        withheld=run_counts.withheld.get(name, 0),
        retried=counts.retried,
        shared=dict(sorted(counts.shared.items())),
        variants=dict(sorted(counts.variants.items())),
        mean_error=mean_error(counts.variants, variant_errors),
    )


def _fused(slots: int, served: Mapping[int, int]) -> FusedSummary:
    padded = sum((slots - size) * runs for size, runs in served.items())
    return FusedSummary(slots=slots, served=dict(sorted(served.items())), padded=padded)


def latency_summary(latencies: Latencies) -> LatencySummary:
    """Return the figures of latencies in seconds."""
    if not latencies.count:
        return LatencySummary()
    return LatencySummary(
        mean=latencies.mean_s() * 1e3,
        p50=latencies.quantile_s(0.50) * 1e3,
        p90=latencies.quantile_s(0.90) * 1e3,
        p95=latencies.quantile_s(0.95) * 1e3,
        p99=latencies.quantile_s(0.99) * 1e3,
        max=latencies.quantile_s(1.0) * 1e3,
    )


def _processor(
    processor: Processor, run_counts: RunCounts, output_errors: dict[str, float]
) -> ProcessorSummary:
    counts = run_counts.processors.get(processor.name, ProcessorCounts())
    return ProcessorSummary(
        backend=processor.backend,
        units=tuple(sorted(processor.units)),
        precision=processor.precision,
        busy_fraction=_per_s(counts.busy_s, run_counts.duration_s),
        executions=counts.executions,
        failed=counts.failed,
        output_errors=output_errors,
    )


def _totals(models: Iterable[ModelSummary]) -> TotalsSummary:
    rows = list(models)
    kinds = [field.name for field in dataclasses.fields(TotalsSummary)]
    sums: dict[str, Any] = {kind: sum(getattr(row, kind) for row in rows) for kind in kinds}
    sums["throughput_per_s"] = math.fsum(row.throughput_per_s for row in rows)
    return TotalsSummary(**sums)


def _bound(reached_per_s: float, bound_per_s: float | None, mix_of: MixOf) -> BoundSummary:
    if bound_per_s is None:
        return BoundSummary()
    fraction = reached_per_s / bound_per_s
    return BoundSummary(throughput_per_s=bound_per_s, fraction=fraction, mix_of=mix_of)


def _warnings(models: Mapping[str, ModelSummary]) -> Iterable[str]:
    for name, row in models.items():
        if 0 < row.completed < _FEW_COMPLETIONS:
            yield f"{name}: p99 rests on {row.completed} completions only; run longer to trust it"
        if row.unfinished:
            yield f"{name}: {row.unfinished} requests had no answer when the run ended"


def _excess(bound: BoundSummary, mode: str, run_counts: RunCounts) -> Iterable[str]:
    """Say how a run came to serve more than the bound, which is for the long run and mean times."""
    fraction, duration_s = bound.fraction, run_counts.duration_s
    if fraction is None or fraction <= 1 + _SHOWN:
        return
    begun_s = max((counts.begun_s for counts in run_counts.processors.values()), default=0.0)
    more = f"{fraction - 1:.1%} more was served than the bound, which is for the long run: "
    if fraction <= 1 + begun_s / duration_s:
        yield more + "what ended in the window had partly been done before it; run longer"
    elif mode == "simulate":
        yield more + "in so short a run the times drawn were shorter than their means; run longer"
    elif fraction > _BOUND_ALLOWANCE:
        yield (
            f"the run reached {fraction:.1%} of its bound: the profile is out of date; profile "
            "again, or run longer if few requests were served"
        )


def _fault_of(error: Exception) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
