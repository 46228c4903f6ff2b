"""Profiler: models x processors x batches -> `Profile`. Loads, measures, compares, remembers."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from coinfer.backends.base import Backend, Session, Tensors
from coinfer.backends.registry import get_backend
from coinfer.backends.sessions import CREATION_LOCK
from coinfer.errors import BackendError
from coinfer.hardware.environment import cpu_name
from coinfer.model import Model
from coinfer.processor import Processor
from coinfer.profiles import Measurement, Profile, ProfileKey
from coinfer.profiling import memory
from coinfer.profiling.cache import ProfileCache, key_parts
from coinfer.profiling.measure import Effort, measure, on_cores

__all__ = ["Progress", "profile_models", "relative_error"]

Progress = Callable[[int, int, str], None]
"""Called as `progress(done, total, what)` before each measurement and once at the end."""


class _Task(NamedTuple):
    model: str
    processor: Processor
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """All that one profiling needs, so that no function takes eight arguments."""

    models: Mapping[str, Model]
    feeds: Mapping[str, Sequence[Tensors]]
    backends: Mapping[str, Backend]
    effort: Effort
    cache: ProfileCache | None
    machine: str


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
    skipped: Callable[[str], None] | None = None,
) -> Profile:
    """Measure every model on every processor at every batch size.

    Processors that differ only in which of the machine's equal cores they use are measured once.
    A processor below fp32 also gets its output error against the same backend and device in
    fp32, over all sample inputs, in `Measurement.error`.

    Args:
        models: Models by name.
        processors: Processors to measure on.
        batches: Batch sizes; a model without a symbolic batch is measured at 1 only.
        effort: When a measurement is good enough.
        cache: Where to look first and to keep results; None measures everything.
        backends: Backends by name, for those that are not to be looked up.
        feeds: Sample inputs of batch 1 by model; random ones otherwise.
        progress: Called before each measurement.
        skipped: Called with the reason where a processor cannot run a model; None: raise instead.

    Returns:
        A profile with an entry for every (model, processor, batch) that runs.

    Raises:
        BackendError: a model cannot be loaded on a processor, or failed while it ran there.
    """
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
    tasks = list(_tasks(models, processors, batches))
    entries: dict[ProfileKey, Measurement] = {}
    measured: dict[tuple[object, ...], Measurement | None] = {}
    for done, task in enumerate(tasks):
        if progress is not None:
            progress(done, len(tasks), f"{task.model} on {task.processor.name}")
        twin = (task.model, task.batch, _kind(task.processor))
        if twin not in measured:
            measured[twin] = _cached(bench, task, skipped)
        found = measured[twin]
        if found is not None:
            entries[ProfileKey(task.model, task.processor.name, task.batch)] = found
    if progress is not None:
        progress(len(tasks), len(tasks), "profiled")
    return Profile(entries)


def relative_error(outputs: Sequence[Tensors], reference: Sequence[Tensors]) -> float:
    """Return the largest ||out - ref|| / ||ref|| over outputs and samples.

    >>> import numpy as np
    >>> relative_error([{"y": np.array([1.0, 1.1])}], [{"y": np.array([1.0, 1.0])}]) < 0.08
    True
    """
    worst = 0.0
    for out, ref in zip(outputs, reference, strict=True):
        for name, expected in ref.items():
            wide = expected.astype(np.float64)
            gap = float(np.linalg.norm(out[name].astype(np.float64) - wide))
            size = float(np.linalg.norm(wide))
            worst = max(worst, gap / size if size > 0 else gap)
    return worst


def _tasks(
    models: Mapping[str, Model], processors: Sequence[Processor], batches: Sequence[int]
) -> Iterator[_Task]:
    for name, model in models.items():
        sizes = tuple(batches) if model.batch_symbol is not None else (1,)
        for processor in processors:
            for batch in sizes:
                yield _Task(name, processor, batch)


def _kind(processor: Processor) -> tuple[object, ...]:
    return (
        processor.backend,
        processor.device,
        processor.threads,
        processor.precision,
        tuple(sorted(processor.options.items())),
    )


def _samples(model: Model, given: Sequence[Tensors] | None) -> Sequence[Tensors]:
    return given or [model.sample_inputs(seed=seed) for seed in range(4)]


def _cached(
    bench: _Bench, task: _Task, skipped: Callable[[str], None] | None
) -> Measurement | None:
    parts = key_parts(
        bench.models[task.model].fingerprint.full,
        task.processor,
        task.batch,
        bench.backends[task.processor.backend].versions(),
        bench.machine,
        bench.effort,
    )
    if task.processor.precision != "fp32":  # the error depends on what it was measured with
        parts["samples"] = _digest(bench.feeds[task.model])
    found = bench.cache.get(parts) if bench.cache is not None else None
    if found is not None:
        return found
    try:
        found = on_cores(task.processor.cores, lambda: _measure(bench, task))
    except BackendError as error:
        if skipped is None:
            raise
        skipped(str(error))
        return None
    if bench.cache is not None:
        bench.cache.put(parts, found)
    return found


def _digest(samples: Sequence[Tensors]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for sample in samples:
        for name in sorted(sample):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(sample[name]).tobytes())
    return digest.hexdigest()


def _measure(bench: _Bench, task: _Task) -> Measurement:
    model = bench.models[task.model]
    samples = bench.feeds[task.model]
    memory.settle()
    before = memory.resident_bytes()
    session, load_s = _load(bench, model, task.processor)
    try:
        loaded = memory.resident_bytes()
        feeds = [_repeated(model, sample, task.batch) for sample in samples[:4]]
        session.run(feeds[0])
        running = memory.resident_bytes()
        seconds = measure(session, feeds, bench.effort)
        error = None
        if task.processor.precision != "fp32" and task.batch == 1:
            error = _error(bench, model, task.processor, session, samples)
    finally:
        session.close()
    return Measurement(
        seconds=seconds,
        load_s=load_s,
        resident_bytes=max(0, loaded - before),
        run_bytes=max(0, running - loaded),
        error=error,
    )


def _load(bench: _Bench, model: Model, processor: Processor) -> tuple[Session, float]:
    with CREATION_LOCK:
        started = time.perf_counter()
        session = bench.backends[processor.backend].load(model, processor)
        return session, time.perf_counter() - started


def _error(
    bench: _Bench,
    model: Model,
    processor: Processor,
    session: Session,
    samples: Sequence[Tensors],
) -> float:
    reference, _ = _load(bench, model, dataclasses.replace(processor, precision="fp32"))
    try:
        return relative_error(
            [session.run(sample) for sample in samples],
            [reference.run(sample) for sample in samples],
        )
    finally:
        reference.close()


def _repeated(model: Model, sample: Tensors, batch: int) -> Tensors:
    """Make a batch of one sample; inputs without the batch axis stay as they are."""
    if batch == 1:
        return sample
    batched = {spec.name for spec in model.inputs if spec.shape[:1] == (model.batch_symbol,)}
    return {
        name: np.concatenate([value] * batch) if name in batched else value
        for name, value in sample.items()
    }
