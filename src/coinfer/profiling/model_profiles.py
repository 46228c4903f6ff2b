"""Profile models: models x processors x batch sizes -> `Profile`.

The processors that could run a model are measured side by side, in turns, so that a machine whose
speed drifts does not favour one of them. What must come out equal is measured once: processors that
differ only in which of the machine's equal cores they use, and models in fp32 that differ only in
their weights. Of many widths a few are measured (`widths`).
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import MappingProxyType
from typing import TypeAlias, TypeVar

from coinfer.backends.base import Backend, Tensors
from coinfer.backends.patience import HangError
from coinfer.backends.pools import POOLS
from coinfer.backends.registry import find_backends
from coinfer.errors import BackendError
from coinfer.machine.estimate import by_analogy
from coinfer.machine.processor import Processor, ordinary
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.model import Model
from coinfer.plan.work import Work
from coinfer.profiling.budget import Budget
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.candidate import Candidate
from coinfer.profiling.context import MOST_FEEDS, ProfilingContext, by_class
from coinfer.profiling.declaration import undeclared
from coinfer.profiling.deployment import Progress
from coinfer.profiling.identity import identity
from coinfer.profiling.measure import Effort, on_cores
from coinfer.profiling.skip import Skip
from coinfer.profiling.task import Task, candidates, tasks_of
from coinfer.profiling.widths import between, points
from coinfer.units import format_bytes

__all__ = ["profile_models"]

R = TypeVar("R")

_Result: TypeAlias = Measurement | BackendError
_Seconds: TypeAlias = Mapping[str, Mapping[str, float]]

_BRIEF = Effort(warmup_runs=1, min_runs=2, max_runs=3, max_s=0.3, precision=0.1)
"""How a model is measured once the budget is spent."""


def profile_models(
    models: Mapping[str, Model],
    processors: Sequence[Processor],
    *,
    batches: Sequence[int] = (1,),
    effort: Effort = Effort(),
    cache: ProfileCache | None = None,
    backends: Mapping[str, Backend] | None = None,
    feeds: Mapping[str, Sequence[Tensors]] | None = None,
    progress: Progress | None = None,
    skipped: Callable[[Skip], None] | None = None,
    budget: Budget | None = None,
    expected: _Seconds | None = None,
    works: Mapping[str, Work] = MappingProxyType({}),
) -> Profile:
    """Measure every model on every processor at every batch size and class of sizes.

    Args:
        models: Models by name.
        processors: Processors to measure on; express ones take as long as those they stand on.
        batches: Batch sizes; a model without a symbolic batch is measured at 1 only.
        effort: When a measurement is good enough.
        cache: Where to look first and to keep results; None measures everything.
        backends: Backends by name, for those that are not to be looked up.
        feeds: Sample inputs by model, of batch 1 where the batch is symbolic; random ones
            otherwise. Below fp32 the output error is that over all of them.
        progress: Called before each measurement.
        skipped: Called where a processor cannot run a model; None: raise instead.
        budget: How long measuring may take. Once it is spent, a model is measured on one processor
            only, with little effort, and its other times are estimated by what models before it
            show. None: as long as it takes.
        expected: Seconds by model and processor, to take instead once the budget is spent.
        works: How work grows with open dimensions, by model that has some.

    Returns:
        A profile with an entry for every (model, processor, batch, class of sizes) that runs.

    Raises:
        BackendError: a model cannot be loaded on a processor, or failed while it ran there.
    """
    processors = ordinary(processors)
    context = ProfilingContext(
        models=models,
        samples={
            name: by_class((feeds or {}).get(name) or _random(model), works.get(name))
            for name, model in models.items()
        },
        backends=find_backends(processors, backends or {}),
        effort=effort,
        cache=cache,
        budget=budget or Budget(),
        expected=expected or {},
    )
    tasks = []
    for task in tasks_of(models, processors, batches, context.samples):
        reason = undeclared(models[task.model], task.processor)
        if reason is None:
            tasks.append(task)
        else:
            _skip(task, BackendError(f"{task}: {reason}"), skipped)
    entries: dict[ProfileKey, Measurement] = {}
    for task, found in _results(context, tasks, progress).items():
        if isinstance(found, Measurement):
            entries[task.key] = found
        else:
            _skip(task, found, skipped)
    return Profile(entries)


def _random(model: Model) -> list[Tensors]:
    return [model.sample_inputs(seed=seed) for seed in range(MOST_FEEDS)]


def _skip(task: Task, error: BackendError, skipped: Callable[[Skip], None] | None) -> None:
    if skipped is None:
        raise error
    skipped(Skip(task.model, task.processor.name, str(error)))


def _results(
    context: ProfilingContext, tasks: Sequence[Task], progress: Progress | None
) -> dict[Task, _Result]:
    """Measure what must come out equal once, candidates together."""
    twins = {task: identity(context.parts(task)) for task in tasks}
    known: dict[str, _Result] = {}
    seconds: dict[str, dict[str, float]] = {}
    for done, group in candidates(tasks):
        if progress is not None:
            named = dict.fromkeys(task.processor.name for task in group)
            progress(done, len(tasks), f"{group[0].model} on {', '.join(named)}")
        fresh = {twins[t]: t for t in reversed(group) if twins[t] not in known}
        known |= _over_widths(context, fresh, seconds)
        if group[0].shape == 0:  # by these, models are compared
            seconds.setdefault(group[0].model, {}).update(
                _means({t: known[twins[t]] for t in group})
            )
    if progress is not None:
        progress(len(tasks), len(tasks), "profiled")
    return {task: known[twins[task]] for task in tasks if twins[task] in known}


def _over_widths(
    context: ProfilingContext, fresh: Mapping[str, Task], seconds: _Seconds
) -> dict[str, _Result]:
    """Measure some widths of each series; tell the others from them, or from the cache."""
    first, others = points(fresh)
    found = _measured(context, first, seconds)
    rest: dict[str, Task] = {}
    for twin, task in others.items():
        known = [(fresh[t], r) for t, r in found.items() if isinstance(r, Measurement)]
        expected = context.recall(task) or between(task, known)
        if expected is None:
            rest[twin] = task
        else:
            found[twin] = expected
    return found | _measured(context, rest, seconds)


def _measured(
    context: ProfilingContext, tasks: Mapping[str, Task], seconds: _Seconds
) -> dict[str, _Result]:
    """Look into the cache, measure the rest side by side, and remember; by identity."""
    kept = {twin: context.recall(task) for twin, task in tasks.items()}
    found: dict[str, _Result] = {twin: each for twin, each in kept.items() if each is not None}
    fresh = {twin: task for twin, task in tasks.items() if twin not in found}
    if not fresh:
        return found
    if context.budget.is_spent:
        # Larger sizes need no estimate of their own: they follow from the smallest one's.
        fresh = {twin: task for twin, task in fresh.items() if task.shape == 0}
        return found | _hurried(context, fresh, seconds)
    with context.budget.spending():
        return found | _together(_within(context, len(fresh)), fresh)


def _within(context: ProfilingContext, count: int) -> ProfilingContext:
    """Take no longer than the budget, shared equally, but for what little is always done."""
    share_s = context.budget.left_s / count
    if share_s >= context.effort.max_s:
        return context
    effort = dataclasses.replace(context.effort, max_s=share_s)
    return dataclasses.replace(context, effort=effort if share_s > _BRIEF.max_s else _BRIEF)


def _together(context: ProfilingContext, fresh: Mapping[str, Task]) -> dict[str, _Result]:
    """Measure side by side, as many at once as there is room for, and remember."""
    found: dict[str, _Result] = {}
    for together in _parties(fresh):
        for twin, result in _side_by_side(context, together).items():
            found[twin] = result
            if isinstance(result, Measurement):
                context.remember(fresh[twin], result)
    return found


def _hurried(
    context: ProfilingContext, fresh: Mapping[str, Task], seconds: _Seconds
) -> dict[str, _Result]:
    """Measure as little as possible of one model; estimate the rest by what is known.

    That is how processors compare with other models, or with this one at a batch of one.
    """
    brief = dataclasses.replace(context, effort=_BRIEF)
    alone = {twin: context.recall(t._replace(batch=1)) for twin, t in fresh.items() if t.batch > 1}
    known = {fresh[twin]: found for twin, found in alone.items() if found is not None}
    ratios = {**seconds, **({"": _means(known)} if known else {})}

    def typical_s(twin: str) -> float:
        on_it = [
            row[name] for row in seconds.values() if (name := fresh[twin].processor.name) in row
        ]
        return statistics.fmean(on_it) if on_it else math.inf

    found: dict[str, _Result] = {}
    listed = list(fresh)[::-1]
    for twin in sorted(listed, key=typical_s):
        task = fresh[twin]
        own = _means({fresh[t]: result for t, result in found.items()})
        expected_s = context.expected.get(task.model, {}).get(task.processor.name)
        if expected_s is None:
            expected_s = by_analogy({**ratios, task.model: own}, task.model, task.processor.name)
        if expected_s is None:
            found |= _together(brief, {twin: task})
        else:
            found[twin] = Measurement(seconds=(expected_s,), estimated=True)
    return found


def _means(results: Mapping[Task, _Result]) -> dict[str, float]:
    """Mean seconds by processor of what was measured."""
    return {
        task.processor.name: found.mean_s
        for task, found in results.items()
        if isinstance(found, Measurement) and not (found.estimated or found.interpolated)
    }


def _parties(tasks: Mapping[str, Task]) -> list[dict[str, Task]]:
    """Split candidates into as few parties as the process has room for the thread pools of."""
    parties: list[dict[str, Task]] = [{}]
    for twin, task in tasks.items():
        together = [*parties[-1].values(), task]
        if task.processor.threads > 1 and len(together) > 1 and not _has_room(together):
            parties.append({})
        parties[-1][twin] = task
    return parties


def _has_room(tasks: Iterable[Task]) -> bool:
    """Tell whether all can be loaded at once, and then any of them in fp32 to compare with."""
    pools = [task.processor.threads for task in tasks if task.processor.threads > 1]
    return all(sum(pools) + threads <= POOLS.room(threads) for threads in pools)


def _side_by_side(context: ProfilingContext, tasks: Mapping[str, Task]) -> dict[str, _Result]:
    """Prepare all, load all, let them take turns until each is known well enough, close all."""
    results: dict[str, _Result] = {}
    context.prepare(tasks.values())
    with ExitStack() as opened:
        loaded: dict[str, Candidate] = {}
        for twin, task in tasks.items():
            candidate = _attempt(context, task, partial(Candidate.loaded, context, task))
            if isinstance(candidate, Candidate):
                opened.callback(_close, candidate, twin, results)
                loaded[twin] = candidate
            else:
                results[twin] = candidate
        _take_turns(loaded, results)
        for twin, candidate in loaded.items():
            if twin not in results:
                results[twin] = _attempt(context, candidate.task, candidate.measurement)
    return results


def _take_turns(loaded: Mapping[str, Candidate], failures: dict[str, _Result]) -> None:
    """Run until every candidate is known well enough or has failed; note those that failed."""
    running = dict(loaded)
    while running:
        for twin, candidate in list(running.items()):
            n_calls = 1 + candidate.context.effort.warmup_runs
            failed = _attempt(
                candidate.context, candidate.task, candidate.sampler.turn, n_calls=n_calls
            )
            if failed is not None:
                failures[twin] = failed
            if failed is not None or candidate.sampler.is_done:
                del running[twin]


def _close(candidate: Candidate, twin: str, results: Mapping[str, _Result]) -> None:
    """Close a session unless something hangs in it."""
    if not isinstance(results.get(twin), HangError):
        candidate.session.close()


def _attempt(
    context: ProfilingContext,
    task: Task,
    call: Callable[[threading.Event], R],
    *,
    n_calls: int = 0,
) -> R | BackendError:
    """Call where the engine's worker will run, and turn what a session raises into a reason."""
    cores = context.caller_cores(task.processor)
    try:
        return on_cores(cores, call, f"measuring {task}", n_calls=n_calls)
    except Exception as error:  # noqa: BLE001 - a session is foreign code
        if isinstance(error, BackendError) and not _is_out_of_memory(error):
            return error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if _is_out_of_memory(error):
            weights = format_bytes(context.models[task.model].weight_bytes)
            reason = (
                f"out of memory: its weights alone take {weights}, and libraries may hold them "
                "twice while they load; free memory, or leave that processor out"
            )
        failed = BackendError(f"{task} failed while it was measured: {reason}")
        failed.__cause__ = error
        return failed


def _is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory was missing, in Python or in a library written in C++."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or "bad_alloc" in str(cause):
            return True
        cause = cause.__cause__
    return False
