"""Hand-over and submission: what requests cost the engine beyond the time that models run."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from coinfer import zoo
from coinfer.backends.null import NullBackend
from coinfer.hardware.cores import available_cores
from coinfer.hardware.environment import cpu_name
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile
from coinfer.machine.submission import Submission
from coinfer.metrics.recorder import Recorder
from coinfer.model import Model, model_from_ir
from coinfer.plan.plan import Plan, PolicyChoice
from coinfer.profiling import ProfileCache
from coinfer.runtime.apart import do_apart
from coinfer.runtime.engine import Engine
from coinfer.runtime.load_generator import LoadGenerator
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario

__all__ = ["handover_s", "submission"]

_RUNS = 300
_IN_FLIGHT = 4
_MOMENTS = 40
_GAP_S = 0.025
"""Between two moments at which requests are due: by then all is answered and rests."""

_TOGETHER = 8
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


def submission(cache: ProfileCache | None = None) -> Submission:
    """Return the seconds that requests need to come to where it is decided what starts.

    Measured with requests that are due while all rests, one at a time and several at once, by the
    same load generator as in a run. The first of several sweeps the caches, so that the next time
    nothing of the engine is there, as after a network. What the first one takes counts until its
    answer, less its run and the hand-over, so it holds the wake-up of a worker. Medians.

    Args:
        cache: Where to look first and to keep the result.
    """
    parts: dict[str, object] = {
        "submission": 2,
        "machine": cpu_name(),
        "moments": _MOMENTS,
        "together": _TOGETHER,
    }
    found = cache.get(parts) if cache is not None else None
    if found is None:
        alone, several = _begun_s(1), _begun_s(_TOGETHER)
        first_s = max(0.0, statistics.median(alone.answered_s) - handover_s(cache))
        later_s = statistics.median(several.started_s) - statistics.median(alone.started_s)
        found = Measurement(seconds=(first_s, max(0.0, later_s / (_TOGETHER - 1))))
        if cache is not None:
            cache.put(parts, found)
    return Submission(*found.seconds)


def _measured() -> list[float]:
    with _engine(["m"]) as (engine, recorder, model):
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


class _Begun(NamedTuple):
    """Seconds from when requests were due: to the first start of each moment, and to its answer.

    The answer's are without the time that the model ran.
    """

    started_s: Sequence[float]
    answered_s: Sequence[float]


def _begun_s(together: int) -> _Begun:
    """Submit so many requests at each of some moments, and look at those that started first."""
    names = [f"m{number}" for number in range(together)]
    scenario = Scenario.model_validate(
        {
            "models": {name: {"source": "zoo:tiny_mlp"} for name in names},
            "arrivals": {name: {"periodic": 1 / _GAP_S} for name in names},
            "duration": _MOMENTS * _GAP_S,
            "warmup": 0.0,
        }
    )
    with _engine(names) as (engine, recorder, model):
        feeds = {name: [model.sample_inputs()] for name in names}
        attend = partial(engine.attend, only_urgent=True)
        load = LoadGenerator(engine, Load(scenario), feeds, scenario.models, attend)
        do_apart(partial(load.play, lambda _: True), lambda: True, load.stop, "coinfer-load")
        engine.drain()
    services = {record.request_ids[0]: record.service_s or 0.0 for record in recorder.executions()}
    firsts: dict[float, tuple[float, float]] = {}
    for record in recorder.requests():
        if record.started_s is not None and record.finished_s is not None:
            due_s = round(record.due_s / _GAP_S, 1)
            answered_s = record.finished_s - record.due_s - services[record.id]
            found = (record.started_s - record.due_s, answered_s)
            firsts[due_s] = min(firsts.get(due_s, found), found)
    started = [started_s for started_s, _ in firsts.values()]
    return _Begun(started, [answered_s for _, answered_s in firsts.values()])


@contextmanager
def _engine(names: Sequence[str]) -> Iterator[tuple[Engine, Recorder, Model]]:
    """Run an engine with models of which the first sweeps the caches and the others do nothing."""
    model = model_from_ir(zoo.build("tiny_mlp"), name="m")
    one = Processor(
        name="one", backend="null", units=frozenset({"one"}), cores=available_cores()[:1]
    )
    swept = np.ones(_SWEPT_BYTES // 8)

    def sweep(name: str, _processor: str, _batch: int) -> float:
        # It counts as service; there is nothing to wait for after it.
        return 0.0 * float(swept.sum()) if name == names[0] else 0.0

    recorder = Recorder()
    profile = Profile.from_seconds({name: {"one": 1e-9} for name in names})
    machine = Machine(processors=(one,), profile=profile)
    with Engine(
        Plan.of(machine, policy=PolicyChoice(name="fcfs")),
        dict.fromkeys(names, model),
        backends={"null": NullBackend(service_s=sweep)},
        observer=recorder,
    ) as engine:
        yield engine, recorder, model
