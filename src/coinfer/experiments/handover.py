"""Hand-over: what executions cost the engine beyond the time that models run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import numpy as np

from coinfer import zoo
from coinfer.backends.null import NullBackend
from coinfer.hardware.cores import available_cores
from coinfer.hardware.environment import cpu_name
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile
from coinfer.metrics.recorder import Recorder
from coinfer.model import Model, model_from_ir
from coinfer.plan.plan import Plan, PolicyChoice
from coinfer.profiling import ProfileCache
from coinfer.runtime.engine import Engine

__all__ = [
    "SWEPT_BYTES",
    "factors",
    "handover",
    "handover_s",
    "recorded_engine",
    "sweeping_engine",
    "undisturbed",
]

_RUNS = 300
_IN_FLIGHT = 4
_PAUSE = 2.0
"""Times the median above which something holds a pause of the whole process."""

SWEPT_BYTES = 2**25
"""What an imagined model reads: as much as a network, which leaves the caches as one does."""


def handover(cache: ProfileCache | None = None) -> Measurement:
    """Return the seconds from the start of an execution to its end less its service time.

    Measured while requests wait, so that a processor goes from one to the next, with a model that
    only sweeps the caches: after a network has run, the engine finds nothing of its own there.
    Without what was disturbed.

    Args:
        cache: Where to look first and to keep the result.
    """
    parts: dict[str, object] = {"handover": 3, "machine": cpu_name(), "runs": _RUNS}
    found = cache.get(parts) if cache is not None else None
    if found is None:
        found = Measurement(seconds=undisturbed(_measured()))
        if cache is not None:
            cache.put(parts, found)
    return found


def handover_s(cache: ProfileCache | None = None) -> float:
    """Return the mean of `handover`."""
    return handover(cache).mean_s


def undisturbed(seconds: Sequence[float]) -> tuple[float, ...]:
    """Return those that are no pauses of the whole process, nor hold one.

    The same instructions take half as long again where their data have left the caches; the system
    keeps a thread from its core for a time slice, some milliseconds, whatever it does. So a
    multiple of the median tells them apart. A quantile would not: how many are disturbed depends
    on what else ran just then, and where none was, it would cut off what is merely slow, which
    latencies of one in a hundred consist of.

    >>> undisturbed([0.25, 0.375, 0.25, 4.0])
    (0.25, 0.375, 0.25)
    """
    most_s = _PAUSE * statistics.median(seconds)
    return tuple(each for each in seconds if each <= most_s)


def factors(*samples: Sequence[float]) -> tuple[float, ...]:
    """Return how many times as long as the mean of its sample each one is.

    >>> factors([1.0, 3.0], [0.0, 0.0])
    (0.5, 1.5)
    """
    means = [(each, statistics.fmean(each)) for each in samples]
    return tuple(seconds / mean_s for each, mean_s in means if mean_s > 0 for seconds in each)


def _measured() -> list[float]:
    with sweeping_engine(["m"]) as (engine, recorder, model):
        feed = model.sample_inputs()
        waiting: list[Future[Any]] = []
        for _ in range(_RUNS):
            waiting.append(engine.submit("m", feed))
            if len(waiting) == _IN_FLIGHT:
                waiting.pop(0).result()
        engine.drain()
    return [
        max(0.0, record.finished_s - record.started_s - (record.service_s or 0.0))
        for record in recorder.executions()
    ]


@contextmanager
def sweeping_engine(names: Sequence[str]) -> Iterator[tuple[Engine, Recorder, Model]]:
    """Run an engine with models of which the first sweeps the caches and the others do nothing."""
    one = Processor(
        name="one", backend="null", units=frozenset({"one"}), cores=available_cores()[:1]
    )
    swept = np.ones(SWEPT_BYTES // 8)

    def sweep(name: str, _processor: str, _batch: int) -> float:
        # It counts as service; there is nothing to wait for after it.
        return 0.0 * float(swept.sum()) if name == names[0] else 0.0

    profile = Profile.from_seconds({name: {"one": 1e-9} for name in names})
    with recorded_engine(Machine(processors=(one,), profile=profile), "fcfs", sweep) as running:
        yield running


@contextmanager
def recorded_engine(
    machine: Machine, policy: str, service_s: Callable[[str, str, int], float]
) -> Iterator[tuple[Engine, Recorder, Model]]:
    """Run an engine with imagined models, and record what it does.

    Args:
        machine: Of processors of the null backend; its profile says which models there are.
        policy: Its name.
        service_s: What a run does: `NullBackend` calls it with the model, the processor and the
            batch, and takes as long as it returns.
    """
    model = model_from_ir(zoo.build("tiny_mlp"), name="m")
    recorder = Recorder()
    with Engine(
        Plan.of(machine, policy=PolicyChoice(name=policy)),
        dict.fromkeys(machine.profile.models(), model),
        backends={"null": NullBackend(service_s=service_s)},
        observer=recorder,
    ) as engine:
        yield engine, recorder, model
