"""Hand-over: what one execution costs the engine beyond the time that the model runs."""

from __future__ import annotations

from concurrent.futures import Future
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
from coinfer.model import model_from_ir
from coinfer.plan.plan import Plan, PolicyChoice
from coinfer.profiling import ProfileCache
from coinfer.runtime.engine import Engine

__all__ = ["handover_s"]

_RUNS = 300
_IN_FLIGHT = 4
_SWEPT_BYTES = 2**25
"""What the imagined model reads: as much as a network, which leaves the caches as one does."""


def handover_s(cache: ProfileCache | None = None) -> float:
    """Return the seconds from the start of an execution to its end less its service time.

    Measured while requests wait, so that a processor goes from one to the next, with a model that
    only sweeps the caches: after a network has run, the engine finds nothing of its own there. The
    median, because a pause of the whole process is no hand-over.

    Args:
        cache: Where to look first and to keep the result.
    """
    parts: dict[str, object] = {"handover": 2, "machine": cpu_name(), "runs": _RUNS}
    found = cache.get(parts) if cache is not None else None
    if found is None:
        found = Measurement(seconds=tuple(_measured()))
        if cache is not None:
            cache.put(parts, found)
    return found.median_s


def _measured() -> list[float]:
    model = model_from_ir(zoo.build("tiny_mlp"), name="m")
    one = Processor(
        name="one", backend="null", units=frozenset({"one"}), cores=available_cores()[:1]
    )
    swept = np.ones(_SWEPT_BYTES // 8)

    def sweep(_model: str, _processor: str, _batch: int) -> float:
        return 0.0 * float(swept.sum())  # counts as service; there is nothing to wait for after it

    recorder = Recorder()
    profile = Profile.from_seconds({"m": {"one": 1e-9}})
    machine = Machine(processors=(one,), profile=profile)
    with Engine(
        Plan.of(machine, policy=PolicyChoice(name="fcfs")),
        {"m": model},
        backends={"null": NullBackend(service_s=sweep)},
        observer=recorder,
    ) as engine:
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
