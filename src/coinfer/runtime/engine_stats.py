"""Engine stats: what an engine has done so far. Plain values; nothing here counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coinfer.backends.base import DeviceUse
from coinfer.core.dispatcher import Dispatcher
from coinfer.core.failures import FailureCount
from coinfer.core.request import Outcome
from coinfer.machine.profile import Profile
from coinfer.machine.span import Span
from coinfer.metrics.latency import ExactLatencies
from coinfer.metrics.memory_track import ProcessMemory
from coinfer.metrics.served_by import mean_error
from coinfer.metrics.summary import LatencySummary, latency_summary, plain
from coinfer.plan.plan import Plan
from coinfer.runtime.answer_counts import AnswerCounts
from coinfer.runtime.event_loop import EventLoop
from coinfer.runtime.loader import Loader
from coinfer.runtime.model_store import ModelStore
from coinfer.runtime.process_memory import process_memory
from coinfer.runtime.worker import Use

__all__ = [
    "EngineStats",
    "MemoryStats",
    "ModelStats",
    "PolicyStats",
    "ProcessorStats",
    "engine_stats",
    "submitted",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStats:
    """One model's requests since it was loaded.

    Counted while the engine works: a request that is being answered at this very moment may not be
    among the submitted.

    Attributes:
        submitted: All of them: completed + dropped + failed + rejected + cancelled + queue +
            running.
        completed: Answered with a result.
        late: Those of the completed that were answered after their deadline.
        dropped: The deadline passed, or could not be met, before the start.
        failed: Answered with an error of a run.
        rejected: Not taken: the admission limit was reached, or the engine closed.
        cancelled: Cancelled by the caller.
        retried: How often a run failed and what it served was tried again. Callers see only those
            whose last try failed, too.
        queue: Requests that wait: to start, for their next span, or to be tried again.
        running: Requests that run.
        latency_ms: From due to answered, in milliseconds, of the last 1,024 completed.
        variants: Of a model with several variants, how many of the completed each served.
        mean_error: Of such a model, the mean over the completed of the stated output error of the
            variant that served it.
    """

    submitted: int
    completed: int
    late: int
    dropped: int
    failed: int
    rejected: int
    cancelled: int
    retried: int
    queue: int
    running: int
    latency_ms: LatencySummary
    variants: Mapping[str, int] = field(default_factory=dict)
    mean_error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorStats:
    """One processor since the engine's start.

    Attributes:
        busy_fraction: Share of the time that sessions ran on it, 0 to 1. A run counts when it ends.
        executions: Runs that ended on it, however they ended.
        failed: Those of them that failed, and those that were given up.
        loaded: By model, the spans of it that are loaded.
        resident_bytes: Memory that these hold, by the profile. Processors may share sessions: what
            they share counts for each.
    """

    busy_fraction: float
    executions: int
    failed: int
    loaded: Mapping[str, tuple[Span, ...]]
    resident_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStats:
    """What an engine believes that its models take, and what the system says that the process does.

    Attributes:
        budget_bytes: By name of the memory, now; empty without a budget, and so are the next two.
        resident_bytes: What is loaded there now or is on its way, by the profile: weights, and
            activations at the largest planned batch.
        loads: Loads that ended well since the start.
        failed: Loads that failed.
        evictions: Evictions.
        load_s: Seconds that these loads took.
        corrected_bytes: Bytes by which places count with more than the profile says, as measured.
        process: What the system says that the whole process holds in its own memory and of files;
            None where it does not tell.
        before: What it held before anything was loaded; None without a budget, too.
        devices: By name of a memory that is not the host's, what the library that runs models there
            says of it now: what this process holds is to be compared with `resident_bytes`.
    """

    budget_bytes: Mapping[str, int]
    resident_bytes: Mapping[str, int]
    loads: int
    failed: int
    evictions: int
    load_s: float
    corrected_bytes: int
    process: ProcessMemory | None
    before: ProcessMemory | None
    devices: Mapping[str, DeviceUse] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStats:
    """Which policy decides.

    Attributes:
        name: Its name, with the options if there are any.
        why: Why it does, if it was chosen and not given; else empty.
        changes: How often another one took over since the start.
    """

    name: str
    why: str
    changes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """What an engine has done so far.

    Attributes:
        up_s: Seconds since its start, until it was stopped.
        models: By name, those that are loaded.
        processors: By name, in the order of preference.
        memory: What is held, loaded and evicted.
        policy: Which policy decides, and why.

    >>> from coinfer import Engine
    >>> from coinfer.testing.models import tiny_linear
    >>> model = tiny_linear().model
    >>> with Engine({"front": model}) as engine:
    ...     outputs = engine.infer("front", model.sample_inputs())
    ...     stats = engine.stats()
    >>> stats.models["front"].completed, stats.models["front"].queue
    (1, 0)
    """

    up_s: float
    models: Mapping[str, ModelStats]
    processors: Mapping[str, ProcessorStats]
    memory: MemoryStats
    policy: PolicyStats

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json.dumps` writes, e.g. for a page of metrics."""
        return plain(self)


def engine_stats(
    core: Dispatcher,
    event_loop: EventLoop,
    model_store: ModelStore,
    plan: Plan,
    up_s: float,
    policy_changes: int,
) -> EngineStats:
    """Put together what is known of an engine, whether it runs or was stopped.

    Args:
        core: Counts failures and what has no answer.
        event_loop: Counts answers and what the workers did.
        model_store: Has what is loaded.
        plan: Tells the bytes of that, how far variants are off, and the policy.
        up_s: Seconds since the engine's start.
        policy_changes: How often the policy was changed.
    """
    failures = list(core.failures.counts.values())
    unanswered, errors, profile = core.unanswered(), plan.variant_errors, plan.profile
    models = {}
    for name in tuple(model_store.models):
        counts, left = event_loop.counts[name], unanswered.get(name, (0, 0))
        if event_loop.is_stopped or event_loop.crashed:  # what was left got an error
            outcome = Outcome.FAILED if event_loop.crashed else Outcome.REJECTED
            counts, left = counts.with_others(outcome, sum(left)), (0, 0)
        models[name] = _model_stats(name, counts, left, failures, errors)
    names = [each for model in models for each in model_store.variants(model)]
    names += model_store.fused
    loaded = [(name, span, at) for name in names for span, at, _ in model_store.items(name)]
    processors = {
        name: _processor_stats(name, worker.use, up_s, failures, loaded, profile)
        for name, worker in event_loop.worker_pool.workers.items()
    }
    memory = _memory_stats(core, event_loop.loader, model_store)
    why = "; ".join(choice.what for choice in plan.policy_why)
    return EngineStats(
        up_s=up_s,
        models=models,
        processors=processors,
        memory=memory,
        policy=PolicyStats(name=plan.policy.text, why=why, changes=policy_changes),
    )


def submitted(core: Dispatcher, event_loop: EventLoop) -> dict[str, int]:
    """Return by model how many requests came since the start."""
    found = {name: sum(left) for name, left in core.unanswered().items()}
    for name, counts in list(event_loop.counts.items()):
        answered = counts.completed + sum(counts.others.values())
        found[name] = found.get(name, 0) + answered
    return found


def _memory_stats(core: Dispatcher, loader: Loader, model_store: ModelStore) -> MemoryStats:
    """Put together what is believed of memory, and what the system says."""
    memories, use, watch = core.memories, loader.use, loader.watch
    return MemoryStats(
        budget_bytes={name: int(budget) for name, (budget, _) in memories.items()},
        resident_bytes={name: int(taken) for name, (_, taken) in memories.items()},
        loads=use.loads,
        failed=use.failed,
        evictions=use.evictions,
        load_s=use.load_s,
        corrected_bytes=0 if watch is None else watch.corrected_bytes,
        process=process_memory(),
        before=None if watch is None else watch.before,
        devices=model_store.device_uses(),
    )


def _model_stats(
    name: str,
    counts: AnswerCounts,
    unanswered: tuple[int, int],
    failures: Iterable[FailureCount],
    errors: Mapping[str, float],
) -> ModelStats:
    """Put together what is known of one model.

    Args:
        name: Its name.
        counts: Its answers.
        unanswered: How many of its requests wait, and how many run.
        failures: Failed runs, also those of other models.
        errors: Stated output error of variants by name.
    """
    others = counts.others
    latencies = ExactLatencies()
    for seconds in list(counts.latencies_s):
        latencies.add(seconds)
    queue, running = unanswered
    return ModelStats(
        submitted=counts.completed + sum(others.values()) + queue + running,
        completed=counts.completed,
        late=counts.late,
        dropped=others[Outcome.DROPPED],
        failed=others[Outcome.FAILED],
        rejected=others[Outcome.REJECTED],
        cancelled=others[Outcome.CANCELLED],
        retried=sum(each.retried_of.get(name, 0) for each in failures),
        queue=queue,
        running=running,
        latency_ms=latency_summary(latencies),
        variants=dict(counts.variants),
        mean_error=mean_error(dict(counts.variants), errors),
    )


def _processor_stats(
    name: str,
    use: Use,
    up_s: float,
    failures: Iterable[FailureCount],
    loaded: Sequence[tuple[str, Span, str]],
    profile: Profile,
) -> ProcessorStats:
    """Put together what is known of one processor.

    Args:
        name: Its name.
        use: What its workers did.
        up_s: Seconds since the engine's start.
        failures: Failed runs, also those on other processors.
        loaded: (model, span, processor) of all that is loaded.
        profile: Tells the bytes of that.
    """
    here = sorted((model, span) for model, span, processor in loaded if processor == name)
    spans: dict[str, tuple[Span, ...]] = {}
    for model, span in here:
        spans[model] = (*spans.get(model, ()), span)
    held = dict.fromkeys(here, 0)
    for key, entry in profile:
        place = (key.model, key.span)
        if key.processor == name and place in held:  # at several batch sizes, it may be
            held[place] = max(held[place], entry.resident_bytes)
    return ProcessorStats(
        busy_fraction=use.busy_s / up_s if up_s > 0 else 0.0,
        executions=use.executions,
        failed=sum(each.runs for each in failures if each.processor == name),
        loaded=spans,
        resident_bytes=sum(held.values()),
    )
