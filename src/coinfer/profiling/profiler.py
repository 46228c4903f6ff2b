"""Profiler: models x processors x batches -> `Profile`. Loads, measures, compares, remembers."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from coinfer import zoo
from coinfer.backends.base import Backend, Session, Tensors
from coinfer.backends.registry import get_backend
from coinfer.backends.sessions import CREATION_LOCK
from coinfer.errors import BackendError
from coinfer.hardware.environment import cpu_name
from coinfer.model import Model, model_from_ir
from coinfer.processor import Processor, ordinary
from coinfer.profiles import Measurement, Profile, ProfileKey
from coinfer.profiling import memory
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.declaration import undeclared
from coinfer.profiling.error import relative_error
from coinfer.profiling.identity import identity, key_parts
from coinfer.profiling.measure import Effort, Sampler, on_cores
from coinfer.profiling.skip import Skip

__all__ = ["Progress", "profile_models"]

Progress = Callable[[int, int, str], None]
"""Called as `progress(done, total, what)` before each measurement and once at the end."""

_MOST_FEEDS = 4

R = TypeVar("R")


class _Task(NamedTuple):
    model: str
    processor: Processor
    batch: int

    def __str__(self) -> str:
        return f"model {self.model!r} on processor {self.processor.name!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """All that one profiling needs, so that no function takes eight arguments."""

    models: Mapping[str, Model]
    feeds: Mapping[str, Sequence[Tensors]]
    backends: Mapping[str, Backend]
    effort: Effort
    cache: ProfileCache | None
    machine: str
    awake: set[tuple[str, str]] = field(default_factory=set)


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
) -> Profile:
    """Measure every model on every processor at every batch size.

    The processors that could run a model are measured side by side, in turns, so that a machine
    whose speed drifts does not favour one of them. What must come out equal is measured once:
    processors that differ only in which of the machine's equal cores they use, and models in fp32
    that differ only in their weights. A
    processor below fp32 also gets its output error against the same backend and device in fp32,
    over all sample inputs, in `Measurement.error`.

    Args:
        models: Models by name.
        processors: Processors to measure on; express ones take as long as those they stand on.
        batches: Batch sizes; a model without a symbolic batch is measured at 1 only.
        effort: When a measurement is good enough.
        cache: Where to look first and to keep results; None measures everything.
        backends: Backends by name, for those that are not to be looked up.
        feeds: Sample inputs by model, of batch 1 where the batch is symbolic; random ones
            otherwise.
        progress: Called before each measurement.
        skipped: Called where a processor cannot run a model; None: raise instead.

    Returns:
        A profile with an entry for every (model, processor, batch) that runs.

    Raises:
        BackendError: a model cannot be loaded on a processor, or failed while it ran there.
    """
    processors = ordinary(processors)
    given = backends or {}
    names = {processor.backend for processor in processors}
    bench = _Bench(
        models=models,
        feeds={name: _samples(model, (feeds or {}).get(name)) for name, model in models.items()},
        backends={name: given[name] if name in given else get_backend(name) for name in names},
        effort=effort,
        cache=cache,
        machine=cpu_name(),
    )
    tasks = []
    for task in _tasks(models, processors, batches):
        reason = undeclared(models[task.model], task.processor)
        if reason is None:
            tasks.append(task)
        elif skipped is None:
            raise BackendError(f"{task}: {reason}")
        else:
            skipped(Skip(task.model, task.processor.name, f"{task}: {reason}"))
    twins = {task: identity(_parts(bench, task)) for task in tasks}
    known: dict[str, Measurement | BackendError] = {}
    for done, group in _groups(tasks):
        if progress is not None:
            named = dict.fromkeys(task.processor.name for task in group)
            progress(done, len(tasks), f"{group[0].model} on {', '.join(named)}")
        known |= _measured(bench, {twins[t]: t for t in reversed(group) if twins[t] not in known})
    if progress is not None:
        progress(len(tasks), len(tasks), "profiled")
    entries: dict[ProfileKey, Measurement] = {}
    for task in tasks:
        found = known[twins[task]]
        if isinstance(found, Measurement):
            entries[ProfileKey(task.model, task.processor.name, task.batch)] = found
        elif skipped is None:
            raise found
        else:
            skipped(Skip(task.model, task.processor.name, str(found)))
    return Profile(entries)


def _groups(tasks: Sequence[_Task]) -> Iterator[tuple[int, list[_Task]]]:
    """Yield the rivals for one model and batch together, after the number of tasks before them."""
    rivals: dict[tuple[str, int], list[_Task]] = {}
    for task in tasks:
        rivals.setdefault((task.model, task.batch), []).append(task)
    done = 0
    for group in rivals.values():
        yield done, group
        done += len(group)


def _tasks(
    models: Mapping[str, Model], processors: Sequence[Processor], batches: Sequence[int]
) -> Iterator[_Task]:
    for name, model in models.items():
        sizes = tuple(batches) if model.batch_symbol is not None else (1,)
        for processor in processors:
            for batch in sizes:
                yield _Task(name, processor, batch)


def _samples(model: Model, given: Sequence[Tensors] | None) -> Sequence[Tensors]:
    return given or [model.sample_inputs(seed=seed) for seed in range(_MOST_FEEDS)]


def _parts(bench: _Bench, task: _Task) -> dict[str, object]:
    return key_parts(
        task.model,
        bench.models[task.model].fingerprint,
        task.processor,
        task.batch,
        bench.feeds[task.model],
        bench.backends[task.processor.backend].versions(),
        bench.machine,
        bench.effort,
    )


def _measured(bench: _Bench, tasks: Mapping[str, _Task]) -> dict[str, Measurement | BackendError]:
    """Look into the cache, measure the rest side by side, and remember; by identity."""
    found: dict[str, Measurement | BackendError] = {}
    for twin, task in tasks.items():
        cache = _cache(bench, task)
        kept = cache.get(_parts(bench, task)) if cache is not None else None
        if kept is not None:
            found[twin] = kept
    fresh = {twin: task for twin, task in tasks.items() if twin not in found}
    for twin, result in _side_by_side(bench, fresh).items():
        found[twin] = result
        cache = _cache(bench, fresh[twin])
        if cache is not None and isinstance(result, Measurement):
            cache.put(_parts(bench, fresh[twin]), result)
    return found


def _cache(bench: _Bench, task: _Task) -> ProfileCache | None:
    # A backend that states no versions cannot be told from another one of the same name.
    return bench.cache if bench.backends[task.processor.backend].versions() else None


def _side_by_side(
    bench: _Bench, tasks: Mapping[str, _Task]
) -> dict[str, Measurement | BackendError]:
    """Load all, let them take turns until each is known well enough, close all."""
    results: dict[str, Measurement | BackendError] = {}
    with ExitStack() as opened:
        rivals: dict[str, _Rival] = {}
        for twin, task in tasks.items():
            rival = _attempt(task, partial(_opened, bench, task))
            if isinstance(rival, _Rival):
                opened.callback(rival.session.close)
                rivals[twin] = rival
            else:
                results[twin] = rival
        running = dict(rivals)
        while running:
            for twin, rival in list(running.items()):
                failed = _attempt(tasks[twin], rival.sampler.turn)
                if failed is not None:
                    results[twin] = failed
                if failed is not None or rival.sampler.is_done:
                    del running[twin]
        for twin, rival in rivals.items():
            if twin not in results:
                results[twin] = _attempt(tasks[twin], partial(_finished, bench, tasks[twin], rival))
    return results


def _attempt(task: _Task, call: Callable[[threading.Event], R]) -> R | BackendError:
    """Call where the engine's worker will run, and turn what a session raises into a reason."""
    try:
        return on_cores(task.processor.cores, call)
    except BackendError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a session is foreign code
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        failed = BackendError(f"{task} failed while it was measured: {reason}")
        failed.__cause__ = error
        return failed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rival:
    """One loaded session that is being measured."""

    session: Session
    sampler: Sampler
    load_s: float
    resident_bytes: int
    run_bytes: int


def _opened(bench: _Bench, task: _Task, _stop: threading.Event) -> _Rival:
    """Load and run once, and see what memory that takes."""
    model = bench.models[task.model]
    _wake(bench, task.processor)
    memory.settle()
    before = memory.resident_bytes()
    session, load_s = _load(bench, model, task.processor)
    try:
        memory.settle()  # what loading took for a moment is not what the model holds
        loaded = memory.resident_bytes()
        samples = bench.feeds[task.model][:_MOST_FEEDS]
        feeds = [_repeated(model, sample, task.batch) for sample in samples]
        session.run(feeds[0])
        running = memory.resident_bytes()
    except BaseException:
        session.close()
        raise
    return _Rival(
        session=session,
        sampler=Sampler(session, feeds, bench.effort),
        load_s=load_s,
        resident_bytes=max(0, loaded - before),
        run_bytes=max(0, running - loaded),
    )


def _finished(bench: _Bench, task: _Task, rival: _Rival, _stop: threading.Event) -> Measurement:
    error = None
    if task.processor.precision != "fp32":
        error = _error(bench, task, rival.session, bench.feeds[task.model])
    return Measurement(
        seconds=tuple(rival.sampler.seconds),
        load_s=rival.load_s,
        resident_bytes=rival.resident_bytes,
        run_bytes=rival.run_bytes,
        error=error,
    )


def _wake(bench: _Bench, processor: Processor) -> None:
    """Load something tiny first: what a library sets up once is not the first model's memory."""
    device = (processor.backend, processor.device)
    if device in bench.awake:
        return
    bench.awake.add(device)
    tiny = model_from_ir(zoo.build("tiny_mlp"), name="tiny_mlp")
    with suppress(Exception):  # then the model to be measured will tell what is wrong
        session, _ = _load(bench, tiny, dataclasses.replace(processor, precision="fp32"))
        with closing(session):
            session.run(tiny.sample_inputs())


def _load(bench: _Bench, model: Model, processor: Processor) -> tuple[Session, float]:
    with CREATION_LOCK:
        started = time.perf_counter()
        session = bench.backends[processor.backend].load(model, processor)
        return session, time.perf_counter() - started


def _error(bench: _Bench, task: _Task, session: Session, samples: Sequence[Tensors]) -> float:
    in_fp32 = dataclasses.replace(task.processor, precision="fp32")
    reference, _ = _load(bench, bench.models[task.model], in_fp32)
    try:
        error = relative_error(
            [session.run(sample) for sample in samples],
            [reference.run(sample) for sample in samples],
        )
    finally:
        reference.close()
    if math.isfinite(error):
        return error
    precision = task.processor.precision
    raise BackendError(f"{task}: its outputs in {precision} are not finite where those in fp32 are")


def _repeated(model: Model, sample: Tensors, batch: int) -> Tensors:
    """Make a batch of one sample; inputs without the batch axis stay as they are."""
    if batch == 1:
        return sample
    batched = {spec.name for spec in model.inputs if spec.shape[:1] == (model.batch_symbol,)}
    return {
        name: np.concatenate([value] * batch) if name in batched else value
        for name, value in sample.items()
    }
