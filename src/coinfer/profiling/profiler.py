"""Profiler: models x processors x batches -> `Profile`. Loads, measures, compares, remembers."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from coinfer import zoo
from coinfer.backends.base import Backend, Session, Tensors
from coinfer.backends.registry import get_backend
from coinfer.backends.sessions import CREATION_LOCK
from coinfer.errors import BackendError
from coinfer.hardware.environment import cpu_name
from coinfer.model import Model, model_from_ir
from coinfer.processor import Processor
from coinfer.profiles import Measurement, Profile, ProfileKey
from coinfer.profiling import memory
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.error import relative_error
from coinfer.profiling.identity import identity, key_parts
from coinfer.profiling.measure import Effort, measure, on_cores
from coinfer.profiling.skip import Skip

__all__ = ["Progress", "profile_models"]

Progress = Callable[[int, int, str], None]
"""Called as `progress(done, total, what)` before each measurement and once at the end."""

_MOST_FEEDS = 4


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

    What must come out equal is measured once: processors that differ only in which of the
    machine's equal cores they use, and models in fp32 that differ only in their weights. A
    processor below fp32 also gets its output error against the same backend and device in fp32,
    over all sample inputs, in `Measurement.error`.

    Args:
        models: Models by name.
        processors: Processors to measure on.
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
    known: dict[str, Measurement] = {}
    for done, task in enumerate(tasks):
        if progress is not None:
            progress(done, len(tasks), f"{task.model} on {task.processor.name}")
        twin = identity(_parts(bench, task))
        found = known[twin] if twin in known else _measured(bench, task)
        if isinstance(found, Measurement):
            known[twin] = found
            entries[ProfileKey(task.model, task.processor.name, task.batch)] = found
        elif skipped is None:
            raise found
        else:
            skipped(Skip(task.model, task.processor.name, str(found)))
    if progress is not None:
        progress(len(tasks), len(tasks), "profiled")
    return Profile(entries)


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


def _measured(bench: _Bench, task: _Task) -> Measurement | BackendError:
    """Look into the cache, or measure and remember."""
    # A backend that states no versions cannot be told from another one of the same name.
    cache = bench.cache if bench.backends[task.processor.backend].versions() else None
    parts = _parts(bench, task)
    found = cache.get(parts) if cache is not None else None
    if found is not None:
        return found
    try:
        found = on_cores(task.processor.cores, lambda stop: _measure(bench, task, stop))
    except BackendError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a session is foreign code
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        failed = BackendError(f"{task} failed while it was measured: {reason}")
        failed.__cause__ = error
        return failed
    if cache is not None:
        cache.put(parts, found)
    return found


def _measure(bench: _Bench, task: _Task, stop: threading.Event) -> Measurement:
    model = bench.models[task.model]
    samples = bench.feeds[task.model]
    _wake(bench, task.processor)
    memory.settle()
    before = memory.resident_bytes()
    session, load_s = _load(bench, model, task.processor)
    try:
        memory.settle()  # what loading took for a moment is not what the model holds
        loaded = memory.resident_bytes()
        feeds = [_repeated(model, sample, task.batch) for sample in samples[:_MOST_FEEDS]]
        session.run(feeds[0])
        running = memory.resident_bytes()
        seconds = measure(session, feeds, bench.effort, stop=stop)
        error = None
        if task.processor.precision != "fp32":
            error = _error(bench, task, session, samples)
    finally:
        session.close()
    return Measurement(
        seconds=seconds,
        load_s=load_s,
        resident_bytes=max(0, loaded - before),
        run_bytes=max(0, running - loaded),
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
