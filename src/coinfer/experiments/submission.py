"""Submission: how requests come from the moment that they are due to where it is decided."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np

from coinfer.experiments.handover import (
    SWEPT_BYTES,
    factors,
    handover_s,
    recorded_engine,
    sweeping_engine,
    undisturbed,
)
from coinfer.hardware.cores import available_cores
from coinfer.hardware.environment import cpu_name
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile
from coinfer.machine.submission import Submission
from coinfer.metrics.recorder import Recorder
from coinfer.model import Model
from coinfer.profiling import ProfileCache
from coinfer.runtime.apart import do_apart
from coinfer.runtime.engine import Engine
from coinfer.runtime.load_generator import LoadGenerator
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario

__all__ = ["submission"]

_MOMENTS = 40
_WARMUP = 4
"""Moments before them: with the first one threads begin to give way, and all of it is new."""

_GAP_S = 0.025
"""Between two moments at which requests are due: by then all is answered and rests."""

_TOGETHER = 8
_DEADLINE_S = 0.01
_LOOPS = 2
"""Cores that are busy with what gives way: that of the thread that submits, and one beside it."""

_LOOP_S = 0.02
_BRIEF_S = 50e-6


def submission(cache: ProfileCache | None = None, *, preempts: bool = False) -> Submission:
    """Return what requests need to come to where it is decided what starts.

    Measured with requests that are due one at a time and several at once, by the same load
    generator as in a run. What they take counts until the first answer, less its run and the
    hand-over. Where requests preempt, the cores run what gives way meanwhile, which fills the
    caches and reads memory all the time, as networks do; there the thread that submits also
    performs what preempts. Else all rests, the first of several requests sweeps the caches, and
    what one takes holds the wake-up of a worker. Without what was disturbed.

    Args:
        cache: Where to look first and to keep the result.
        preempts: Whether some requests run on top of others, by the priority of threads.
    """
    parts: dict[str, object] = {
        "submission": 4,
        "machine": cpu_name(),
        "moments": _MOMENTS,
        "together": _TOGETHER,
        "preempts": preempts,
    }
    alone, several = (
        _kept(cache, {**parts, "at once": together}, together, preempts=preempts)
        for together in (1, _TOGETHER)
    )
    first_s = max(0.0, statistics.fmean(alone) - handover_s(cache))
    later_s = statistics.fmean(several) - statistics.fmean(alone)
    next_s = max(0.0, later_s / (_TOGETHER - 1))
    return Submission(first_s, next_s, factors(alone, several))


def _kept(
    cache: ProfileCache | None, parts: dict[str, object], together: int, *, preempts: bool
) -> Sequence[float]:
    """Return the seconds until the first answer, moment by moment."""
    found = cache.get(parts) if cache is not None else None
    if found is None:
        found = Measurement(seconds=undisturbed(_answered_s(together, preempts=preempts)))
        if cache is not None:
            cache.put(parts, found)
    return found.seconds


def _answered_s(together: int, *, preempts: bool) -> list[float]:
    """Submit so many requests at each of some moments, and look at the first answers.

    Returns:
        Seconds from when they were due, without the time that the model ran.
    """
    names = [f"m{number}" for number in range(together)]
    loops = _loops() if preempts else []
    source = {"source": "zoo:tiny_mlp"}
    urgent = {**source, "deadline": _DEADLINE_S} if preempts else source
    scenario = Scenario.model_validate(
        {
            "models": {**dict.fromkeys(names, urgent), **dict.fromkeys(loops, source)},
            "arrivals": {
                **{name: {"periodic": 1 / _GAP_S} for name in names},
                **{name: {"closed": 1} for name in loops},
            },
            "duration": (_WARMUP + _MOMENTS) * _GAP_S,
            "warmup": 0.0,
        }
    )
    with _busy_engine(names) if preempts else sweeping_engine(names) as (engine, recorder, model):
        feeds = {name: [model.sample_inputs()] for name in scenario.models}
        attend = partial(engine.attend, only_urgent=True)
        load = LoadGenerator(engine, Load(scenario), feeds, scenario.models, attend)
        do_apart(partial(load.play, lambda _: True), lambda: True, load.stop, "coinfer-load")
        engine.drain()
    services = {record.request_ids[0]: record.service_s or 0.0 for record in recorder.executions()}
    firsts: dict[int, float] = {}
    for record in recorder.requests():
        if record.model in names and record.finished_s is not None:
            moment = round((record.due_s - load.start_s) / _GAP_S)
            answered_s = record.finished_s - record.due_s - services[record.id]
            firsts[moment] = min(firsts.get(moment, answered_s), answered_s)
    return [answered_s for moment, answered_s in firsts.items() if moment >= _WARMUP]


def _loops() -> list[str]:
    return [f"loop{core}" for core in available_cores()[:_LOOPS]]


@contextmanager
def _busy_engine(names: Sequence[str]) -> Iterator[tuple[Engine, Recorder, Model]]:
    """Run an engine with models that do nothing, and on each core one that sweeps the caches."""
    cores = available_cores()[:_LOOPS]
    below = [
        Processor(name=f"p{core}", backend="null", units=frozenset({f"core{core}"}), cores=(core,))
        for core in cores
    ]
    on_top = [
        Processor(
            name=f"{p.name}+",
            backend="null",
            units=frozenset({f"{unit}+" for unit in p.units}),
            overlays=p.units,
            cores=p.cores,
        )
        for p in below
    ]
    swept = np.ones(SWEPT_BYTES // 8)

    def sweep(name: str, _processor: str, _batch: int) -> float:
        until_s = time.perf_counter() + (0.0 if name in names else _LOOP_S)
        while time.perf_counter() < until_s:
            swept.sum()
        return 0.0

    seconds = {**dict.fromkeys(names, _BRIEF_S), **dict.fromkeys(_loops(), _LOOP_S)}
    profile = Profile.from_seconds({m: {p.name: s for p in below} for m, s in seconds.items()})
    machine = Machine(processors=(*below, *on_top), profile=profile)
    with recorded_engine(machine, "earliest_finish", sweep) as running:
        yield running
